"""What the loss over a set of samples is to those over its parts: measured once, for every use of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nm_ode.data.sources import TensorSource
from nm_ode.loss import guards
from nm_ode.loss.batching import A_FEW, DeviceBatches, Reduction, by_chance, spread_samples
from nm_ode.loss.directions import around
from nm_ode.loss.evaluation import Evaluation
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.sums import combination_error, distance

if TYPE_CHECKING:
    from nm_ode.loss.chunked import LossAt

_LOOKED_AT = 8  # chunks of data that must be read or prepared
_READ = 256  # the most samples in one of those
_AWAY = (0.1, 0.01, 0.001)  # of an entry and its scale: how far to look, as long as the loss is finite
_STEPS = (1e-9, 1e-8, 3e-8, -3e-8)  # of an entry and its scale, to see the rounding of a loss
_ROUNDINGS = 1e4  # that a loss's agreement may miss
_GRADIENT = {torch.float64: 1e-6, torch.float32: 1e-3}  # that a gradient's may, over the largest norm


class _Apart(Exception):  # noqa: N818 (what was found, not what is broken)
    """Neither mean nor sum is left."""


def measured_reduction(batches: DeviceBatches, at: Evaluation | LossAt, chunk_size: int) -> Reduction | None:
    """Is the loss over samples the mean or the sum of theirs? None if it is neither.

    Sets of samples are cut in two unequal parts, whose losses and gradients must give the set's. Losses, over chunks of
    all the data, or eight from the first to the last where they must be read or prepared, at a theta away from theta0:
    there losses that agree by accident (all those of a network whose last layer is zero, say) differ. Gradients, too,
    and in another order of the samples, over a few samples from all over the data, for sorted data may have other
    weights in each chunk and equal ones within.
    """
    n = len(batches)
    if n == 1:
        return "mean"
    few = list(_few(n, chunk_size))
    try:
        measurement = _Measurement(batches, at, few[0])
        for samples in few:
            for theta in (at.theta, measurement.away):
                measurement.look_closely(theta, samples)
        is_cheap = isinstance(batches.source, TensorSource)
        size = chunk_size if is_cheap else min(chunk_size, _READ)
        for samples in _chunks(n, size, all_of_them=is_cheap):
            measurement.look(samples)
    except _Apart:
        return None
    except ValueError:  # of a layer that does not take so few samples
        return None
    return measurement.found()


def chunked_reduction(
    model: nn.Module, batches: DeviceBatches, at: Evaluation, chunk_size: int
) -> Reduction | None:
    """What the loss is of those over chunks, that it may be evaluated by them; None of ghost batches' alone.

    Raises:
        ProblemError: chunks would change it.
    """
    consequence = "chunk_size would change the loss"
    remedy = "leave chunk_size out" if batches.in_memory else "take all samples in one chunk"
    remedy += ", or take the loss over ghost_batches"
    if not batches.ghosts:
        guards.refuse_batch_statistics(model, consequence, f"{remedy}, or put the module in eval mode")
    reduction = measured_reduction(batches, at, chunk_size)
    return reduction if batches.ghosts else require_mean_or_sum(reduction, consequence, remedy)


def require_mean_or_sum(reduction: Reduction | None, consequence: str, remedy: str) -> Reduction:
    """The reduction.

    Raises:
        ProblemError: there is none.
    """
    if reduction is None:
        raise ProblemError(
            f"{consequence}: over a batch the loss is neither the mean nor the sum of its samples' losses "
            f"(batch-dependent layers, class weights or ignored targets do this); {remedy}"
        )
    return reduction


@dataclass
class _Cut:
    """A set of samples and its two parts."""

    whole: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> _Cut:
        at = (len(samples) + 2) // 3
        return cls(samples, samples[:at], samples[at:])

    @property
    def weights(self) -> dict[Reduction, tuple[float, float]]:
        """By which the parts' values would make the whole's."""
        share = len(self.left) / len(self.whole)
        return {"mean": (share, 1 - share), "sum": (1.0, 1.0)}


class _Measurement:
    def __init__(self, batches: DeviceBatches, at: Evaluation | LossAt, few: Tensor) -> None:
        self._batches, self._at = batches, at
        self.away = at.theta
        direction = around(at.theta, at.layout, 0)
        for share in _AWAY:
            point = (direction * share).add_(at.theta)
            if self._loss(point, few).isfinite():
                self.away = point
                break
        self._possible: list[Reduction] = ["mean", "sum"]
        self._loose = 0.0  # of a loss, relative: its rounding, where that is coarser than its dtype's

    def look(self, samples: Tensor) -> None:
        """At the losses."""
        cut = _Cut.of(samples)
        whole, left, right = (self._loss(self.away, part) for part in (cut.whole, cut.left, cut.right))
        self._keep(cut.weights, whole, left, right, max(map(_size, (whole, left, right))), self._tolerance)

    def look_closely(self, theta: Tensor, samples: Tensor) -> None:
        """At losses and gradients, and at those of the samples in another order."""
        cut = _Cut.of(samples)
        mixed = samples[by_chance(len(samples), seed=1)]
        whole = self._loss_and_grad(theta, cut.whole)
        self._loose = max(self._loose, self._rounding(theta, samples, *whole))
        # Before the parts: each gradient is as large as theta.
        mixings = [
            float(distance(one, other))
            for one, other in zip(self._loss_and_grad(theta, mixed), whole, strict=True)
        ]
        left, right = (self._loss_and_grad(theta, part) for part in (cut.left, cut.right))
        bounds = (self._tolerance, _GRADIENT[theta.dtype])
        for a, b, c, moved, bound in zip(whole, left, right, mixings, bounds, strict=True):
            size = max(map(_size, (a, b, c)))
            self._keep(cut.weights, a, b, c, size, bound)
            if not moved <= bound * size:
                raise _Apart

    def found(self) -> Reduction | None:
        """The one that is left; None if both are, because all there was to see is zero."""
        return self._possible[0] if len(self._possible) == 1 else None

    @property
    def _tolerance(self) -> float:
        return max(_ROUNDINGS * torch.finfo(self._at.theta.dtype).eps, self._loose)

    def _loss(self, theta: Tensor, samples: Tensor) -> Tensor:
        self._at.set(theta)
        with torch.no_grad():
            return self._at.loss(self._batches.batch(samples))

    def _loss_and_grad(self, theta: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        self._at.set(theta)
        with torch.enable_grad():  # whatever the caller's mode
            return self._at.loss_and_grad(self._batches.batch(samples))

    def _rounding(self, theta: Tensor, samples: Tensor, loss: Tensor, gradient: Tensor) -> float:
        """Of a loss that is computed in a lower precision than its dtype's, relative; at most 1e-5.

        What small steps do to it beyond the gradient's share: the larger ones move numbers that float32 rounds, and
        curvature adds nothing yet.
        """
        found, direction = 0.0, around(self._at.theta, self._at.layout, 0)  # as large as theta: made anew
        point = torch.empty_like(direction)
        for share in _STEPS:
            step = torch.mul(direction, share, out=point)
            change = gradient @ step
            beyond = self._loss(step.add_(theta), samples) - loss - change
            if float(loss) and beyond.isfinite():
                found = max(found, float(beyond.abs() / loss.abs()))
        return min(30 * found, 1e-5)

    def _keep(
        self,
        weights: dict[Reduction, tuple[float, float]],
        whole: Tensor,
        left: Tensor,
        right: Tensor,
        size: float,
        bound: float,
    ) -> None:
        self._possible = [
            name
            for name in self._possible
            if float(combination_error(weights[name], (left, right), whole)) <= bound * size
        ]
        if not self._possible:
            raise _Apart


def _size(value: Tensor) -> float:
    return float(torch.linalg.vector_norm(value))


def _few(n: int, chunk_size: int) -> Iterator[Tensor]:
    """Samples in an order by chance: twice as many as are evaluated together, or all."""
    size = min(max(chunk_size, 2), A_FEW, n)
    order = by_chance(n)
    yield order[:size]
    if n >= 2 * size:
        yield order[size : 2 * size]


def _chunks(n: int, chunk_size: int, *, all_of_them: bool) -> Iterator[Tensor]:
    size = min(max(chunk_size, 2), n)
    starts = list(range(0, n - 1, size))
    if not all_of_them and len(starts) > _LOOKED_AT:
        starts = [starts[i] for i in spread_samples(len(starts), _LOOKED_AT)]
    yield from (torch.arange(start, min(start + size, n), device="cpu") for start in starts)
    if len(starts) > 1:
        yield spread_samples(n, size)
