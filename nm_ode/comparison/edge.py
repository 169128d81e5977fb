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
        step: the last at which the average is known.
        error, relative_error: there; of the run its distance from its own average.
        mean: of the relative error, past the edge.
        loss, grad_norm: how far they are from the run's averaged ones, over these, mean past the edge.
    """

    name: str
    title: str
    step: int
    error: float
    relative_error: float
    mean: float
    loss: float = math.nan
    grad_norm: float = math.nan


@dataclass(frozen=True)
class CentralRow:
    """What a central flow predicts of the run's variance, past the edge.

    Attributes:
        predicted, measured: tr Σ, means over the steps at which both are known.
        correlation: of the two along the run.
        no_average: why there is nothing to hold it against; empty where there is.
    """

    name: str
    title: str
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
    """Attributes:
    step, time: the first sample at which a central flow predicts an oscillation; None where none does.
    average: over which window the run's average is; empty where there is none.
    """

    step: int | None
    time: float | None
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
    rows = [_row(name, solve_info(flows[name]).title, one, time) for name, one in held.items()]
    windows = [comparison_info(one).average for one in held.values()]
    if held:
        rows.append(_of_run(max(held.values(), key=lambda one: one.sizes["saved_step"]), time))
    return Edge(
        step=None if time is None else run_info(tree["discrete"].to_dataset()).grid.step_at(time),
        time=time,
        average=next((one for one in windows if one), ""),
        rows=tuple(sorted(rows, key=lambda row: (row.name == "discrete", row.name))),
        central=tuple(_central(name, flow, compared.get(name)) for name, flow in central.items()),
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


def _row(name: str, title: str, comparison: xr.Dataset, time: float | None) -> EdgeRow:
    last = int(known(comparison)[-1])
    relative = comparison["relative_error_to_average"].values
    return EdgeRow(
        name=name,
        title=title,
        step=int(comparison["saved_step"].values[last]),
        error=float(comparison["error_to_average"].values[last]),
        relative_error=float(relative[last]),
        mean=_mean(relative, comparison, time),
        loss=_deviation("averaged_loss", comparison, time),
        grad_norm=_deviation("averaged_grad_norm", comparison, time),
    )


def _of_run(comparison: xr.Dataset, time: float | None) -> EdgeRow:
    last, own = int(known(comparison)[-1]), comparison["run_to_average"].values
    relative = ratio(own, comparison["motion"].values)
    return EdgeRow(
        name="discrete",
        title="the run itself",
        step=int(comparison["saved_step"].values[last]),
        error=float(own[last]),
        relative_error=float(relative[last]),
        mean=_mean(relative, comparison, time),
    )


def _deviation(name: str, comparison: xr.Dataset, time: float | None) -> float:
    """Mean of |gap| over the run's averaged number, past the edge."""
    if f"{name}_gap" not in comparison:
        return math.nan
    return _mean(ratio(np.abs(comparison[f"{name}_gap"].values), comparison[name].values), comparison, time)


def _mean(values: np.ndarray, comparison: xr.Dataset, time: float | None) -> float:
    """Over the samples past the edge at which they are known; over all where there is no edge."""
    times = comparison["saved_time"].values
    there = values[times >= (times[0] if time is None else time)]
    there = there[np.isfinite(there)]
    return float(there.mean()) if there.size else math.nan


def _central(name: str, flow: xr.Dataset, comparison: xr.Dataset | None) -> CentralRow:
    title = solve_info(flow).title
    unknown = Correlation(math.nan, 0, math.nan)
    if comparison is None or not _averaged(comparison):
        told = "" if comparison is None else comparison_info(comparison).no_average
        return CentralRow(name, title, math.nan, math.nan, unknown, told)
    predicted, measured = (comparison[f"{kind}_variance"].values for kind in ("predicted", "measured"))
    past = np.flatnonzero(predicted > 0)
    there = np.arange(len(predicted)) >= (past[0] if past.size else len(predicted))
    there &= np.isfinite(measured)
    found = Correlation(
        float(comparison["variance_correlation"]),
        int(there.sum()),
        float(comparison["variance_correlation_points"]),
    )
    if not there.any():
        return CentralRow(name, title, math.nan, math.nan, found)
    return CentralRow(name, title, float(predicted[there].mean()), float(measured[there].mean()), found)
