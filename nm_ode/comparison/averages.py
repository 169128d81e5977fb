"""A run's own time average: of its parameters, its loss and its gradient's norm, and the variance about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nm_ode.comparison.windows import THREE_STEPS, Array, Window, by_blocks, time_average, variance
from nm_ode.errors import NmOdeError
from nm_ode.results import run_info

_REMEDY = (
    "keep it with save_every = 1, or let observe=[nm_ode.Averages()] (in a case [[observe]] name = 'averages') average "
    "while the run goes on"
)


class NoAverageError(NmOdeError, ValueError):
    """A run of which the time average is not known."""


@dataclass(frozen=True, eq=False)
class RunAverage:
    """The time average of a run, at steps first, first + 1, …; NaN where the window does not fit.

    Attributes:
        of: the variable that is averaged, "theta" or "theta_sketch".
        rows: shape (places, …), the average of that at the run's saved steps.
        first: the step of the first of the series below, which are of every step.
        distance: ‖θ_k − θ̄_k‖.
        cosine: of the angle between θ_k − θ̄_k and that of the step before: −1 where the run oscillates, 1 where its
            path bends.
        variance: the mean of its square over the window: tr Σ of an oscillation of period two.
        loss: the mean loss; NaN where it is not known of all samples at every step.
        grad_norm: root of the mean of ‖∇L‖², the same.
        each: θ or its sketch at every step, for `along`; None where it was averaged while the run went on.
    """

    window: Window
    of: str
    rows: Array
    first: int
    distance: Array
    cosine: Array
    variance: Array
    loss: Array
    grad_norm: Array
    each: Array | None

    def at(self, series: Array, steps: np.ndarray) -> Array:
        """The values of a series at these steps."""
        return np.asarray(series[np.asarray(steps, dtype=int) - self.first])

    def along(self, step: int, directions: Array) -> Array:
        """The variance along unit vectors, shape (directions,), at one step; NaN where it is not known.

        Args:
            directions: shape (directions, size of a row).
        """
        reach, place = self.window.reach, int(step) - self.first
        if self.each is None or place < 2 * reach or place + 2 * reach >= len(self.each):
            return np.full(len(directions), np.nan)
        # The oscillation is linear in θ, so what it has along a direction is that of θ's own component.
        components = self.each[place - 2 * reach : place + 2 * reach + 1] @ directions.T
        swings = components - time_average(components, self.window)
        return np.asarray(variance(swings[reach:-reach] ** 2, self.window)[reach])


def run_average(run: xr.Dataset, window: Window = THREE_STEPS, of: str = "theta") -> RunAverage:
    """Of a run that kept theta (or a sketch of it) at every step, or that `Averages` observed.

    Args:
        run: from `train`.
        of: "theta", or "theta_sketch" for what a `Sketch` kept in its place.

    Raises:
        NoAverageError: it is not known; says what to set.
    """
    why_none = _why_none(run, window, of)
    if why_none:
        raise NoAverageError(why_none)
    return _of_every_step(run, window, of) if _has_every_step(run, of) else _observed(run, window)


def has_average(run: xr.Dataset, window: Window = THREE_STEPS) -> bool:
    """Can it be had, of theta or of what stands in for it?"""
    return not all(_why_none(run, window, of) for of in ("theta", "theta_sketch"))


def _why_none(run: xr.Dataset, window: Window, of: str) -> str:
    """Why the average cannot be had and what to set; empty where it can."""
    if _has_every_step(run, of):
        count, wanted = run.sizes["saved_step"], 2 * window.reach + 1
        if count >= wanted:
            return ""
        return (
            f"the run's own time average takes {wanted} consecutive steps ({window.title}), and {count} were kept: "
            "take a longer run, or a narrower window"
        )
    if "theta_average" not in run or of != "theta":
        return f"the run's own time average needs theta at every step: {_REMEDY}"
    if window != THREE_STEPS:
        return (
            f"the run kept its average over three steps alone, and a {window.title} needs theta at every step: "
            "save_every = 1"
        )
    return ""


def _has_every_step(run: xr.Dataset, of: str) -> bool:
    steps = run["saved_step"].values
    return of in run and len(steps) > 1 and bool((np.diff(steps) == 1).all())


def _of_every_step(run: xr.Dataset, window: Window, of: str) -> RunAverage:
    each = run[of].values.astype(np.float64, copy=False)
    rows, distance, products = np.empty_like(each), np.empty(len(each)), np.empty(len(each))
    before = np.full((1, each.shape[1]), np.nan)
    for places, means in by_blocks(each, window):
        rows[places] = means
        swings = np.concatenate([before, each[places] - means])
        before = swings[-1:]
        distance[places] = np.linalg.norm(swings[1:], axis=1)
        products[places] = np.einsum("ij,ij->i", swings[1:], swings[:-1])
    norms = distance * np.append(np.nan, distance[:-1])
    first = int(run["saved_step"].values[0])
    loss, grad_norm = _of_losses(run, window, first, len(each))
    return RunAverage(
        window=window,
        of=of,
        rows=rows,
        first=first,
        distance=distance,
        cosine=np.divide(products, norms, out=np.full(len(norms), np.nan), where=norms > 0),
        variance=variance(distance**2, window),
        loss=loss,
        grad_norm=grad_norm,
        each=each,
    )


def _observed(run: xr.Dataset, window: Window) -> RunAverage:
    distance = np.append(run["oscillation_norm"].values, np.nan)  # after the last step there is no next
    loss, grad_norm = _of_losses(run, window, 0, len(distance))
    rows = run["theta_average"].values.astype(np.float64, copy=False)
    return RunAverage(
        window=window,
        of="theta",
        rows=rows,
        first=0,
        distance=distance,
        cosine=np.append(run["oscillation_cosine"].values, np.nan),
        variance=variance(distance**2, window),
        loss=loss,
        grad_norm=grad_norm,
        each=None,
    )


def _of_losses(run: xr.Dataset, window: Window, first: int, count: int) -> tuple[Array, Array]:
    """Mean loss, and the root of the mean ‖∇L‖², of all samples at each step; NaN where they are not known."""
    unknown = np.full(count, np.nan)
    if not run_info(run).grid.is_full_batch or "loss" not in run or "grad_norm" not in run:
        return unknown, unknown
    losses, norms = unknown.copy(), unknown.copy()
    here = slice(first, first + count)
    for series, name in ((losses, "loss"), (norms, "grad_norm")):
        known = run[name].values[here]
        series[: len(known)] = known
    steps = run["saved_step"].values
    if "full_loss" in run and int(steps[-1]) == first + count - 1:
        losses[-1] = run["full_loss"].values[-1]  # of the state after the last step
    return time_average(losses, window), np.sqrt(time_average(norms**2, window))
