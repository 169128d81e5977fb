"""Is the learning rate one at which a flow can follow, along the whole path? Read off the measured sharpness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import numpy as np
import xarray as xr

from nm_ode.comparison.foreseen import Jump, jump
from nm_ode.comparison.summary import Row
from nm_ode.results import comparison_info, run_info


class ErrorPastStability(NamedTuple):
    """A flow's error over the motion: where the run stops being stable, where it jumps (NaN if nowhere), at its end."""

    title: str
    there: float
    at_end: float
    at_jump: float = math.nan


@dataclass(frozen=True)
class Stability:
    """lr · λ_max along a run, against the series limit and the stability limit.

    Attributes:
        largest: over the measured steps.
        series_limit: above it the series of a modified flow does not converge.
        stability_limit: above it the run is not stable; None where the optimiser's is not known.
        series_from, unstable_from: first measured step above each limit; None if there is none. If a run is above
            that of stability several times (at the start of Adam, say), the time at which it jumps.
        unstable_time: flow time of the latter.
        points: how many steps were measured.
        jump: where the run leaves a flow, foreseen and seen; None where it is stable, or its learning rates are not
            there.
        errors: of each flow, the largest at the end first; empty where the run is stable.
    """

    largest: float
    series_limit: float
    stability_limit: float | None
    series_from: int | None
    unstable_from: int | None
    unstable_time: float | None
    points: int
    jump: Jump | None = None
    errors: tuple[ErrorPastStability, ...] = ()


class Farther(NamedTuple):
    """A flow that is farther from the run than one of lower order."""

    higher: Row
    lower: Row


def farther_flows(rows: Sequence[Row]) -> tuple[Farther, ...]:
    """Of each flow that is farther from the run at its end than one of lower order, with the nearest of those."""
    found: dict[str, Farther] = {}
    for higher, lower in permutations([row for row in rows if row.solved], 2):
        one, other = ((row.expected_order, row.relative_error) for row in (higher, lower))
        if higher.beside == lower.beside and higher_order_is_farther(one, other):
            before = found.get(higher.name)
            if before is None or lower.relative_error < before.lower.relative_error:
                found[higher.name] = Farther(higher, lower)
    return tuple(found.values())


def higher_order_is_farther(one: tuple[int, float], other: tuple[int, float]) -> bool:
    """Has the first of two flows, given by order and error, the higher order and the larger error?"""
    return one[0] > other[0] and one[1] > other[1]


def stability(tree: xr.DataTree) -> Stability | None:
    """Of a finished tree; None where the sharpness was not measured."""
    if "curvature" not in tree["discrete"].children:
        return None
    curvature = tree["discrete/curvature"].dataset
    x, steps = curvature["normalised_sharpness"].values, curvature["curvature_step"].values
    times = curvature["curvature_time"].values
    if not len(x):
        return None
    series = float(curvature["series_limit"])
    limit = float(curvature["stability_limit"]) if "stability_limit" in curvature else None
    above = np.flatnonzero(x > series)
    found = _jump(tree["discrete"].dataset, curvature)
    edge = 0 if found is None else found.edge
    beyond = np.flatnonzero((x > (math.inf if limit is None else limit)) & (steps >= edge))
    unstable_time = float(times[beyond[0]]) if beyond.size else None
    return Stability(
        largest=float(x.max()),
        series_limit=series,
        stability_limit=limit,
        series_from=int(steps[above[0]]) if above.size else None,
        unstable_from=int(steps[beyond[0]]) if beyond.size else None,
        unstable_time=unstable_time,
        points=len(x),
        jump=found,
        errors=() if unstable_time is None else _errors(tree, unstable_time, found),
    )


def _jump(run: xr.Dataset, curvature: xr.Dataset) -> Jump | None:
    if "lr" not in run or not run.sizes.get("step"):
        return None
    return jump(curvature, run["lr"].values, batches=not run_info(run).grid.is_full_batch)


def _errors(tree: xr.DataTree, time: float, jumped: Jump | None) -> tuple[ErrorPastStability, ...]:
    found = []
    step = None if jumped is None else jumped.step
    for node in tree["comparison"].children.values() if "comparison" in tree.children else ():
        if "relative_error" in node.dataset and node.dataset.sizes["saved_step"] > 1:
            errors = node.dataset["relative_error"].values
            at = int(np.abs(node.dataset["saved_time"].values - time).argmin())
            saved = node.dataset["saved_step"].values
            at_jump = math.nan if step is None else float(errors[int(np.abs(saved - step).argmin())])
            title = comparison_info(node.dataset).title
            found.append(ErrorPastStability(title, float(errors[at]), float(errors[-1]), at_jump))
    return tuple(sorted(found, key=lambda one: -one.at_end))
