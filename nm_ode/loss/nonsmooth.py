"""Is the loss a smooth function of theta, and how often does a path cross its kinks?

Operations that may have a kink are known by name; whether the gradient jumps is measured. Neither is enough alone:
x/(1 + |x|) and relu(x)² are made of kinked operations and have a continuous gradient, and no list has every operation.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cached_property

import torch
from torch import Tensor

from nm_ode.data.indices import Samples
from nm_ode.loss.batching import spread_samples
from nm_ode.loss.directions import normal, scale
from nm_ode.loss.jumps import Segment, crossing
from nm_ode.loss.kinked_operations import COMPARISON, GUARD, Operations, Unit
from nm_ode.loss.once import once_per_problem
from nm_ode.loss.problem import Problem

UNNAMED = "an operation whose gradient jumps"
"""What is measured and has no name."""

_HARMLESS = (COMPARISON, GUARD)  # unless a unit changes sides
_SAMPLES = (8, 64)  # the fewest and the most that are measured on
_CHEAP = 32  # one of so many samples, so that all evaluations together cost a few gradients
_POINTS = 17  # at which sides are looked at
_CROSSINGS = 6  # at which the gradient is looked at
_LENGTH = 2.0  # of the segment, relative to each parameter tensor's entries


@once_per_problem
def kinks(problem: Problem) -> tuple[str, ...]:
    """Operations between theta and the loss whose derivative jumps, as readable names; () if smooth.

    Measured once a problem, on a few samples along random segments through theta0, each way as long as theta0
    itself: where units of an operation change sides, the gradient jumps or it does not. Operations none of whose
    units changes sides count (but guards against division by zero, and comparisons), and so do those whose units
    are too many for a jump to be seen in the problem's precision, and a jump that no known operation makes
    (`UNNAMED`). Operations with a continuous first derivative (ELU, Huber loss) are smooth, and so are kinks that
    only what does not depend on theta passes. Where no gradient can be taken along the segment, the names alone
    decide.
    """
    samples, names = _few_samples(problem)
    try:
        segment = _Segment(problem, samples, seed=0)
        jumps = {name: segment.jumps(name) for name in names}
        unmet = [name for name, jump in jumps.items() if jump is None]
        if unmet:
            another = _Segment(problem, samples, seed=1)
            jumps |= {name: another.jumps(name) for name in unmet}
        found = [name for name in names if jumps[name] or (jumps[name] is None and name not in _HARMLESS)]
        return tuple(found) if found or not segment.gradient.has_jump else (UNNAMED,)
    except (ArithmeticError, ValueError, RuntimeError):  # a model that is not defined everywhere
        return tuple(name for name in names if name not in _HARMLESS)


def sides(problem: Problem, theta: Tensor, names: Collection[str] | None = None) -> list[Tensor]:
    """On which side of its kink each unit is, operation by operation in the order of the forward pass.

    A unit is an entry of what goes into a ReLU (leaky ReLU, hardtanh, clamp, abs, maximum …), for each sample, or a
    window of a max-pooling.

    Args:
        names: of operations, as of `kinks`; all if None.
    """
    found: list[Tensor] = []
    for batch in problem.chunks():
        found += [
            unit.side
            for unit in _units(problem, theta.detach().to(problem.theta0).clone(), batch)
            if unit.side is not None and (names is None or unit.name in names)
        ]
    return found


def changed_share(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Share of units that are on another side after than before; NaN if there is none."""
    count = sum(side.numel() for side in before)
    return _changes(before, after) / count if count else math.nan


def _units(problem: Problem, theta: Tensor, batch: object) -> list[Unit]:
    """At a theta of the problem's dtype and device, in memory of its own."""
    operations = Operations(theta)
    with torch.no_grad(), operations:  # what reading the batch does is no part of the loss
        problem.loss_on(theta, batch)
    return operations.units


def _few_samples(problem: Problem) -> tuple[Samples, list[str]]:
    """On which to measure, and the operations that their loss goes through."""
    few, most = _SAMPLES
    count = min(max(few, problem.n_samples // _CHEAP), most, problem.n_samples)
    some = spread_samples(problem.n_samples, min(count, problem.chunk_size or count))

    def names(samples: Samples) -> list[str]:
        return sorted({unit.name for unit in _units(problem, problem.theta0.clone(), problem.batch(samples))})

    try:
        return some, names(some)
    except (IndexError, RuntimeError, ValueError):  # a loss that is written for all samples
        return None, names(None)


class _Line:
    """A random line through theta0."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._start = problem.theta0
        self._direction = scale(normal(self._start, seed), self._start, problem.layout).mul_(_LENGTH)
        self._point = torch.empty_like(self._direction)

    def at(self, s: float) -> Tensor:
        """theta, in the same memory each time."""
        return torch.add(self._start, self._direction, alpha=s - 0.5, out=self._point)


class _Segment:
    """A problem along a random segment through theta0."""

    def __init__(self, problem: Problem, samples: Samples, seed: int) -> None:
        self._problem, self._batch = problem, problem.batch(samples)
        self._line = line = _Line(problem, seed)
        # Without a reference to itself: its vectors go as soon as it does.
        self.gradient = Segment(lambda s: problem.grad(line.at(s), samples), torch.finfo(problem.dtype).eps)

    @cached_property
    def _met(self) -> list[list[Unit]]:
        return [self._units_at(i / (_POINTS - 1)) for i in range(_POINTS)]

    def jumps(self, name: str) -> bool | None:
        """Does the gradient jump where a unit changes sides? None where none does."""
        sides = [_sides_of(name, units) for units in self._met]
        if None in sides:  # which sides there are cannot be said
            return True
        crossed = [i for i in range(len(sides) - 1) if sides[i] != sides[i + 1]]
        if not crossed:
            return None
        spread = (
            torch.linspace(0, len(crossed) - 1, min(_CROSSINGS, len(crossed)), device="cpu").long().tolist()
        )
        return any(self._jumps_between(name, crossed[i]) for i in dict.fromkeys(spread))

    def _jumps_between(self, name: str, i: int) -> bool:
        left, right = i / (_POINTS - 1), (i + 1) / (_POINTS - 1)
        left, right = crossing(
            lambda s: _sides_of(name, self._units_at(s)), left, right, self.gradient.narrowest
        )
        return self.gradient.jumps_within(left, right) or self._hides_a_jump(name, left, right)

    def _hides_a_jump(self, name: str, left: float, right: float) -> bool:
        """Could a jump in this interval be too small to be seen, or lie between others?

        In float32 the sides of many units of a convolution change within the narrowest interval, and the share of one
        of a million units in the gradient is below its rounding.
        """
        width = right - left
        sides = [
            [unit.side for unit in self._units_at(s) if unit.name == name and unit.side is not None]
            for s in (left - width, left, right, right + width)
        ]
        count = sum(side.numel() for side in sides[0])
        beside = _changes(sides[0], sides[1]) + _changes(sides[2], sides[3])
        return count * self.gradient.smallest_jump > 1 or beside > 0

    def _units_at(self, s: float) -> list[Unit]:
        return _units(self._problem, self._line.at(s), self._batch)


def _changes(before: Sequence[Tensor], after: Sequence[Tensor]) -> int:
    return sum(int((one != other).sum()) for one, other in zip(before, after, strict=True))


def _sides_of(name: str, units: Sequence[Unit]) -> tuple[bytes, ...] | None:
    """Of all units of an operation, to be compared; None where they cannot be said."""
    found = [unit.side for unit in units if unit.name == name]
    if None in found:
        return None
    return tuple(side.cpu().numpy().tobytes() for side in found if side is not None)
