"""The jump off the flow past the stability limit: foreseen from the curvature along a run, and seen in it.

docs/theory.md §4.11. Past the limit a modified flow still follows, until the oscillation along the sharpest direction
has grown from what it begins with (rounding, the noise of batches, what is left of the start) to the size at which it
bends the path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.flows.growth import Recursion, amplitudes, first_above
from nm_ode.results import annotate

Array = NDArray[np.float64]

_LAG = 2  # steps, between the middle of a fourth difference and its last theta
_FALLEN = 0.99  # of λ_max before: below it λ_max has fallen, and was not measured a little differently
_QUIET = 0.3  # of the size: an oscillation above it has begun to bend the path that is to be foreseen


class NotForeseen(Enum):
    """Why no step is."""

    NOT_RECORDED = auto()
    """How an error grows is not known of this optimiser, or was not recorded, as where λ_max was measured later."""
    NO_SIZE = auto()
    """The loss has no third derivative, or the path does not sharpen wherever it was measured."""
    TOO_SMALL = auto()
    """Within the run the oscillation stays below that size."""


@dataclass(frozen=True)
class Jump:
    """Where a run past the stability limit leaves a flow that knows nothing of its oscillation.

    Attributes:
        foreseen: the step before which the oscillation, as the curvature lets it grow, has the size.
        seen: that before which the oscillation that was measured has it.
        why_not: why none is foreseen; None where one is.
        size: of the oscillation there, as a distance in theta; NaN where it is not known.
        noise: the standard deviation of what a step adds to it; NaN where it is not known.
        batches: is that the noise of minibatches, and not of rounding?
        edge: the step from which on lr · λ_max is above the limit, that time.
    """

    foreseen: int | None
    seen: int | None
    why_not: NotForeseen | None = None
    size: float = float("nan")
    noise: float = float("nan")
    batches: bool = False
    edge: int = 0

    @property
    def step(self) -> int | None:
        """That which was seen, or else foreseen."""
        return self.foreseen if self.seen is None else self.seen


@dataclass(frozen=True)
class _Steps:
    """At each step lr · λ_max, the oscillation foreseen (before it) and the size; what each step adds to it.

    `edge`: where the limit is passed, for the time from which on the oscillation grows to its size, or the first time.
    """

    x: Array
    oscillation: Array
    size: Array
    noise: float
    edge: int
    foreseen: int | None
    recursion: Recursion


def jump(curvature: xr.Dataset, lr: Array, *, batches: bool = False) -> Jump | None:
    """Of a run whose curvature was measured; None where it does not pass the stability limit.

    Args:
        curvature: what `Curvature` records.
        lr: of each step of the run.
        batches: does the run take minibatches?
    """
    limit = _constant(curvature, "stability_limit")
    if limit is None or not (curvature["normalised_sharpness"].values > limit).any():
        return None
    along = _along(curvature, lr, limit)
    if along is None:
        return Jump(None, None, NotForeseen.NOT_RECORDED, batches=batches)
    foreseen, seen = along.foreseen, _seen(curvature, along)
    known = bool(np.isfinite(along.size).any())
    why_not = None if foreseen is not None else NotForeseen.TOO_SMALL if known else NotForeseen.NO_SIZE
    at = next((step for step in (foreseen, seen) if step is not None), along.edge)
    return Jump(foreseen, seen, why_not, float(along.size[at]), along.noise, batches, along.edge)


def with_jump(curvature: xr.Dataset, lr: Array) -> xr.Dataset:
    """The curvature with `foreseen_oscillation` at its steps up to the jump, and `foreseen_step` and `seen_step`.

    They are NaN where there is none, below the stability limit all of them. As it is where nobody knows how an
    oscillation grows.
    """
    if "sharpest_gradient" not in curvature or "growth_momentum" not in curvature:
        return curvature
    found, steps = jump(curvature, lr), curvature["curvature_step"].values
    along = None if found is None else _along(curvature, lr, float(curvature["stability_limit"]))
    grown = np.full(len(steps), np.nan)
    if along is not None:  # beyond the jump the run is another
        end = math.inf if along.foreseen is None else along.foreseen
        grown = np.where(steps <= end, along.oscillation[steps], np.nan)
    return annotate(
        curvature.assign(
            foreseen_oscillation=("curvature_step", grown),
            foreseen_step=((), _or_nan(None if found is None else found.foreseen)),
            seen_step=((), _or_nan(None if found is None else found.seen)),
        )
    )


def _or_nan(step: int | None) -> float:
    return math.nan if step is None else float(step)


def _along(curvature: xr.Dataset, lr: Array, limit: float) -> _Steps | None:
    """None where nobody knows how an error grows under the optimiser."""
    momentum = _constant(curvature, "growth_momentum")
    if momentum is None or "sharpest_gradient" not in curvature:
        return None
    recursion = Recursion(momentum, bool(_constant(curvature, "growth_nesterov")))
    steps, sharpness = curvature["curvature_step"].values, curvature["sharpness"].values
    normalised, sizes = curvature["normalised_sharpness"].values, curvature["leaving_size"].values
    past, count = normalised > limit, len(lr)
    left = _left_from(past, curvature["sharpest_oscillation"].values, sizes)
    x = lr * _share(normalised, sharpness, lr, steps) * _free_path(steps, sharpness, past, left, count)
    noise = _root_mean_square(curvature["sharpest_noise"].values)
    start = float(curvature["sharpest_gradient"].values[0] / abs(sharpness[0])) if sharpness[0] else 0.0
    size = _log_interpolated(steps[:left], sizes[:left], count + 1)
    size[: int(steps[np.isfinite(sizes)][0]) if np.isfinite(sizes).any() else 0] = np.nan
    seen = zip((steps - _LAG).tolist(), curvature["sharpest_oscillation"].values.tolist(), strict=True)
    measured = {step: size for step, size in seen if size > 0}
    above = np.append(x > limit, False)
    edges = np.flatnonzero(above & ~np.append(False, above[:-1])).tolist() or [int(steps[past][0])]
    kept: _Steps | None = None
    for edge in edges:
        before = {step: size for step, size in measured.items() if step < edge}
        oscillation = amplitudes(x, np.full(count, noise), recursion, start, before)
        foreseen = first_above(oscillation, size, edge)
        ends = edge + int(np.argmin(above[edge:]))  # at latest a step beyond the last
        if foreseen is not None and foreseen > ends:
            foreseen = None
        here = _Steps(x, oscillation, size, noise, edge, foreseen, recursion)
        if foreseen is not None:
            return here
        kept = kept or here
    return kept


def _share(normalised: Array, sharpness: Array, lr: Array, steps: NDArray[np.int64]) -> float:
    """What multiplies λ_max over the learning rate: 1 − dampening."""
    moved = sharpness * lr[np.minimum(steps, len(lr) - 1)]
    return float(np.median(normalised[moved != 0] / moved[moved != 0])) if (moved != 0).any() else 1.0


def _root_mean_square(values: Array) -> float:
    """Of those that are numbers; 0 if none is."""
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0


def _left_from(past: NDArray[np.bool_], oscillation: Array, sizes: Array) -> int:
    """How many of the measured points are still on the quiet path: that before those at which the oscillation matters.

    At least one past the limit, for without it there is no size.
    """
    first = int(np.flatnonzero(past)[0])
    for i in range(first + 1, len(past)):
        quiet = _QUIET * sizes[:i][np.isfinite(sizes[:i])][-1:]
        if quiet.size and oscillation[i] > quiet[0]:
            return i
    return len(past)


def _free_path(
    steps: NDArray[np.int64], sharpness: Array, past: NDArray[np.bool_], left: int, count: int
) -> Array:
    """λ_max at each step as it would go on without the oscillation: by straight lines between the measured points.

    From the last point on the quiet path the line goes on. And a line that falls from above the limit is not the
    path's, which sharpens, but a jump's that was over at the next point: the line before goes on until there.
    """
    found = np.interp(np.arange(count), steps, sharpness)
    for i in range(1, left):
        grew = sharpness[i] > sharpness[i - 1]
        falls = grew and i + 1 < len(steps) and sharpness[i + 1] < _FALLEN * sharpness[i]
        if past[i] and (i == left - 1 < len(steps) - 1 or falls):
            slope = (sharpness[i] - sharpness[i - 1]) / (steps[i] - steps[i - 1])
            here = np.arange(steps[i], count if i == left - 1 else min(steps[i + 1], count))
            found[here] = sharpness[i] + slope * (here - steps[i])
    return found


def _seen(curvature: xr.Dataset, along: _Steps) -> int | None:
    """The step before which the measured oscillation first has the size.

    Between two measured points it is a straight line of its logarithm. Where λ_max falls from one to the next it may
    have been larger in between: there it grows from the first as the curvature lets it.
    """
    points, sharpness = curvature["curvature_step"].values - _LAG, curvature["sharpness"].values
    measured = curvature["sharpest_oscillation"].values
    growth = np.append(0.0, np.cumsum([along.recursion.log_factor(x) for x in along.x.tolist()]))
    for i in range(len(points) - 1):
        here = np.arange(max(points[i], along.edge), min(points[i + 1], len(along.x)) + 1)
        if not (here.size and measured[i] > 0 and measured[i + 1] > 0):
            continue
        line = np.interp(here, points[i : i + 2], np.log(measured[i : i + 2]))
        if sharpness[i + 1] < _FALLEN * sharpness[i]:
            line = np.log(measured[i]) + growth[here] - growth[max(points[i], 0)]
        large = np.flatnonzero(np.exp(line) >= along.size[here])
        if large.size:
            return int(here[large[0]])
    return None


def _log_interpolated(steps: NDArray[np.int64], values: Array, count: int) -> Array:
    """At steps 0 … count − 1; beyond the first and last that are known as there, NaN if none is."""
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        return np.full(count, np.nan)
    return np.asarray(np.exp(np.interp(np.arange(count), steps[known], np.log(values[known]))))


def _constant(curvature: xr.Dataset, name: str) -> float | None:
    return float(curvature[name]) if name in curvature else None
