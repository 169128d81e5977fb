"""At the edge of stability: what a tree with a central flow says of every flow and of the run's own average."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nm_ode.comparison.average_errors import PREDICTED_VARIANCE, predicts_variance
from nm_ode.comparison.correlation import Correlation
from nm_ode.comparison.ratio import ratio
from nm_ode.results import comparison_info, run_info, solve_info

LOW = 0.5
"""A correlation below it says that the variance at an instant is not predicted."""


@dataclass(frozen=True)
class EdgeRow:
    """A flow, or the run itself, against the run's own time average. Numbers that are not known are NaN.

    Attributes:
        name: of its group in the tree; "discrete" of the run.
        step: the last at which the average is known and that all flows came to: all numbers are up to there.
        error, relative_error: there; of the run its distance from its own average.
        mean: of the relative error, past the edge.
        settled: the same, once the run oscillates.
        loss, grad_norm: distance from the run's averaged ones, mean over mean, once the run oscillates.
    """

    name: str
    title: str
    step: int
    error: float
    relative_error: float
    mean: float
    settled: float
    loss: float = math.nan
    grad_norm: float = math.nan


@dataclass(frozen=True)
class CentralRow:
    """What a central flow predicts of the run's variance.

    Attributes:
        step: the first past the edge at which the run has half of the mean that is predicted; None if there is none.
        predicted, measured: tr Σ, means from there on.
        correlation: of the two along the run, from there on.
        no_average: why there is nothing to hold it against; empty where there is.
    """

    name: str
    title: str
    step: int | None
    predicted: float
    measured: float
    correlation: Correlation
    no_average: str = ""

    @property
    def is_low(self) -> bool:
        """Does the variance at an instant not go with the predicted one?"""
        return self.correlation.value < LOW


@dataclass(frozen=True)
class Edge:
    """A tree past the edge of stability.

    Attributes:
        step, time: the first sample at which a central flow predicts an oscillation; None where none does.
        settled: the first step at which the run has one of that size; None if there is none.
        average: over which window the run's average is; empty where there is none.
    """

    step: int | None
    time: float | None
    settled: int | None
    average: str
    rows: tuple[EdgeRow, ...]
    central: tuple[CentralRow, ...]


def edge(tree: xr.DataTree) -> Edge | None:
    """Of a tree with a central flow; None of any other."""
    flows = _datasets(tree, "flows")
    central = {name: flow for name, flow in flows.items() if predicts_variance(flow)}
    if not central:
        return None
    compared = _datasets(tree, "comparison")
    time = min((found for flow in central.values() if (found := _from(flow)) is not None), default=None)
    held = {name: one for name in flows if (one := compared.get(name)) is not None and _averaged(one)}
    predicted = tuple(_central(name, flow, compared.get(name)) for name, flow in central.items())
    settled = min((row.step for row in predicted if row.step is not None), default=None)
    last = min((int(one["saved_step"][known(one)[-1]]) for one in held.values()), default=0)
    held = {name: one.isel(saved_step=one["saved_step"].values <= last) for name, one in held.items()}
    rows = [_row(name, solve_info(flows[name]).title, one, time, settled) for name, one in held.items()]
    if held:
        rows.append(_of_run(next(iter(held.values())), time, settled))
    windows = [comparison_info(one).average for one in held.values()]
    return Edge(
        step=None if time is None else run_info(tree["discrete"].to_dataset()).grid.step_at(time),
        time=time,
        settled=settled,
        average=next((one for one in windows if one), ""),
        rows=tuple(sorted(rows, key=lambda row: (row.name == "discrete", row.name))),
        central=predicted,
    )


def known(comparison: xr.Dataset) -> np.ndarray:
    """Places of a comparison at which the run's average is known."""
    return np.flatnonzero(np.isfinite(comparison["error_to_average"].values))


def _datasets(tree: xr.DataTree, group: str) -> dict[str, xr.Dataset]:
    if group not in tree.children:
        return {}
    return {name: node.to_dataset() for name, node in tree.children[group].children.items()}


def _from(flow: xr.Dataset) -> float | None:
    """Flow time from which on it predicts an oscillation."""
    past = np.flatnonzero(flow[PREDICTED_VARIANCE].values > 0)
    return float(flow["time"].values[past[0]]) if past.size else None


def _averaged(comparison: xr.Dataset) -> bool:
    return "error_to_average" in comparison and bool(known(comparison).size)


def _row(name: str, title: str, comparison: xr.Dataset, time: float | None, settled: int | None) -> EdgeRow:
    last = int(known(comparison)[-1])
    relative = comparison["relative_error_to_average"].values
    since = _since(comparison, settled)
    return EdgeRow(
        name=name,
        title=title,
        step=int(comparison["saved_step"].values[last]),
        error=float(comparison["error_to_average"].values[last]),
        relative_error=float(relative[last]),
        mean=_mean(relative[_past(comparison, time)]),
        settled=_mean(relative[since]),
        loss=_deviation("averaged_loss", comparison, since),
        grad_norm=_deviation("averaged_grad_norm", comparison, since),
    )


def _of_run(comparison: xr.Dataset, time: float | None, settled: int | None) -> EdgeRow:
    last, own = int(known(comparison)[-1]), comparison["run_to_average"].values
    relative = ratio(own, comparison["motion"].values)
    return EdgeRow(
        name="discrete",
        title="the run itself",
        step=int(comparison["saved_step"].values[last]),
        error=float(own[last]),
        relative_error=float(relative[last]),
        mean=_mean(relative[_past(comparison, time)]),
        settled=_mean(relative[_since(comparison, settled)]),
    )


def _past(comparison: xr.Dataset, time: float | None) -> np.ndarray:
    """Which samples are past the edge; all where there is none."""
    times = comparison["saved_time"].values
    return np.asarray(times >= (times[0] if time is None else time))


def _since(comparison: xr.Dataset, step: int | None) -> np.ndarray:
    """Which samples there are from a step on; none where there is no such step."""
    steps = comparison["saved_step"].values
    return np.asarray(steps >= step if step is not None else np.zeros(len(steps), dtype=bool))


def _deviation(name: str, comparison: xr.Dataset, there: np.ndarray) -> float:
    """Mean |gap| over the mean of the run's averaged number: where descent bursts, that is small between two bursts."""
    if f"{name}_gap" not in comparison:
        return math.nan
    gap, own = np.abs(comparison[f"{name}_gap"].values[there]), comparison[name].values[there]
    size = _mean(own[np.isfinite(gap)])
    return _mean(gap[np.isfinite(own)]) / size if size > 0 else math.nan


def _mean(values: np.ndarray) -> float:
    """Of those that are known; NaN where none is."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else math.nan


def _central(name: str, flow: xr.Dataset, comparison: xr.Dataset | None) -> CentralRow:
    title, nothing = solve_info(flow).title, Correlation(math.nan, 0, math.nan)
    if comparison is None or not _averaged(comparison):
        told = "" if comparison is None else comparison_info(comparison).no_average
        return CentralRow(name, title, None, math.nan, math.nan, nothing, told)
    step = int(comparison["oscillates_from"])
    if step < 0:
        return CentralRow(name, title, None, math.nan, math.nan, nothing)
    predicted, measured = (comparison[f"{kind}_variance"].values for kind in ("predicted", "measured"))
    there = _since(comparison, step) & np.isfinite(measured)
    found = Correlation(
        float(comparison["variance_correlation"]),
        int(there.sum()),
        float(comparison["variance_correlation_points"]),
    )
    return CentralRow(name, title, step, _mean(predicted[there]), _mean(measured[there]), found)
