"""Is a derivative that of the function? Held against central differences along one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nm_ode.loss.directions import normal, pieces_of, scale
from nm_ode.loss.sums import distance, norm
from nm_ode.parameters import Layout

_AGREES = 1e-5  # relative
_FINE = 1e-10  # rounding: that of float64
_CONVERGED = 1e-2  # relative: differences that vary by more, or whose rounding is more, say nothing


@dataclass(frozen=True)
class Verdict:
    """What differences say of a derivative.

    Attributes:
        differs: they converge, and to another value.
        error: of the derivative, relative to the larger of both; NaN where the differences say nothing.
    """

    differs: bool
    error: float


def compare(
    derivative: Tensor, function: Callable[[float], Tensor], at: Sequence[float], rounding: float
) -> Verdict:
    """Hold d/ds function(s) at s = 0 against (function(h) − function(−h))/2h for one h after the other.

    A first h with which they agree ends the test. Rounding and kinks between −h and h make differences vary from one h
    to the next: those three in succession count that are closest to one another, and only if the derivative is far off.

    Args:
        derivative: shape of what `function` gives.
        function: of the place on the line.
        at: h, from the largest down.
        rounding: relative error of what `function` gives.
    """
    seen: list[_Difference] = []
    last: Tensor | None = None
    exact = float(norm(derivative))
    for h in at:
        difference, largest = _quotient(function, h)
        noise = rounding * largest / h
        if not bool(difference.isfinite().all()):
            continue
        size = max(float(norm(difference)), exact)
        if size == 0.0:
            return Verdict(False, 0.0)
        if noise > _CONVERGED * size:
            continue
        gap = float(distance(difference, derivative))
        if gap <= _AGREES * size + noise:
            return Verdict(False, gap / size)
        moved = float("nan") if last is None else float(distance(difference, last))
        seen.append(_Difference(size, gap, noise, moved))
        last = difference
    best, gap, size = _CONVERGED, 0.0, 1.0
    for _, middle, after in zip(seen, seen[1:], seen[2:], strict=False):
        spread = max(middle.moved, after.moved) + middle.noise
        if spread <= best * middle.size:
            best, gap, size = spread / middle.size, middle.gap, middle.size
    # So written for a derivative that is NaN; without differences that converge the gap is 0.
    differs = not gap <= (10 * best + 1e-4) * size
    return Verdict(differs, gap / size if differs else float("nan"))


@dataclass(frozen=True)
class _Difference:
    """What is kept of one: its own vector is as large as theta.

    Attributes:
        size: its norm or the derivative's, whichever is larger.
        gap: how far it is from the derivative.
        noise: of it.
        moved: how far it is from the one before.
    """

    size: float
    gap: float
    noise: float
    moved: float


def _quotient(function: Callable[[float], Tensor], h: float) -> tuple[Tensor, float]:
    """The difference over 2h, and the larger norm of the two values."""
    after, before = function(h), function(-h)
    largest = float(torch.maximum(norm(after), norm(before)))
    difference = after - before
    del after, before
    return difference.div_(2 * h), largest


@dataclass
class Line:
    """A line near theta.

    Attributes:
        point, direction: shape (P,).
        gradient: at the point.
    """

    point: Tensor
    direction: Tensor
    gradient: Tensor

    def at(self, s: float) -> Tensor:
        """point + s · direction, in the same memory each time."""
        return torch.mul(self.direction, s, out=self._room).add_(self.point)

    @cached_property
    def _room(self) -> Tensor:
        return torch.empty_like(self.direction)


def line(theta: Tensor, layout: Layout, gradient: Callable[[Tensor], Tensor], seed: int = 0) -> Line:
    """A point near theta and a direction of the point's size, both the same at every call with one seed.

    The point is off theta by a hundredth of each parameter's size, so that it is on no kink on which a start often is
    (biases of 0). Half of the direction is random, half goes with the gradient, entry by entry with a random factor, so
    that a gradient that is wrong in one layer does not pass for being small along the line. Entries in which the
    gradient is 0 are left out if others of their parameter have one: a padding row, say, which training does not move.
    A parameter that has no gradient at all stays in, for it may be detached.

    Args:
        theta: shape (P,).
        gradient: at a point.
    """
    source = torch.Generator("cpu").manual_seed(seed)
    for _ in _factors(theta, source):  # drawn anew where they are used: each of these is as large as theta
        pass
    point = scale(normal(theta, source), theta, layout).mul_(1e-2).add_(theta)
    direction = scale(normal(theta, source), theta, layout)
    along = gradient(point)
    for part, own in zip(layout.split(along), layout.split(direction), strict=True):
        if bool(part.any()):
            own.masked_fill_(part == 0, 0.0)
    size = float(norm(along))
    direction.div_(float(norm(direction)) or 1.0)
    if size:
        for piece, factors in _factors(theta, torch.Generator("cpu").manual_seed(seed)):
            direction[piece].add_(factors.add_(0.5).mul_(along[piece]).div_(size))
    return Line(point, direction.mul_(float(norm(point)) / (float(norm(direction)) or 1.0)), along)


def steps(rounding: float) -> tuple[float, ...]:
    """h, from the largest down, for differences of what changes by its own size from 0 to 1.

    As small as rounding allows, for on the way between −h and h there may be kinks.
    """
    if rounding < _FINE:
        return tuple(1e-5 * 10.0**-k for k in range(6))
    return tuple(1e-2 * 4.0**-k for k in range(6))


def _factors(theta: Tensor, source: torch.Generator) -> Iterator[tuple[slice, Tensor]]:
    """Numbers in [0, 1) for each entry, some entries at a time."""
    for piece in pieces_of(len(theta)):
        size = piece.stop - piece.start
        yield piece, torch.rand(size, generator=source, dtype=torch.float64, device="cpu").to(theta)
