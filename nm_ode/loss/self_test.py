"""Is a derivative that of the function? Held against central differences along one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

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
    seen: list[tuple[Tensor, float]] = []
    for h in at:
        after, before = function(h), function(-h)
        difference = (after - before) / (2 * h)
        noise = rounding * float(torch.maximum(_norm(after), _norm(before))) / h
        if not bool(difference.isfinite().all()):
            continue
        scale = max(float(_norm(difference)), float(_norm(derivative)))
        if scale == 0.0:
            return Verdict(False, 0.0)
        if noise > _CONVERGED * scale:
            continue
        gap = float(_norm(difference - derivative))
        if gap <= _AGREES * scale + noise:
            return Verdict(False, gap / scale)
        seen.append((difference, noise))
    best, gap, scale = _CONVERGED, 0.0, 1.0
    for window in zip(seen, seen[1:], seen[2:], strict=False):
        (first, _), (middle, noise), (last, _) = window
        size = max(float(_norm(middle)), float(_norm(derivative)))
        spread = max(float(_norm(b - a)) for a, b in pairwise((first, middle, last))) + noise
        if spread <= best * size:
            best, gap, scale = spread / size, float(_norm(middle - derivative)), size
    # So written for a derivative that is NaN; without differences that converge the gap is 0.
    differs = not gap <= (10 * best + 1e-4) * scale
    return Verdict(differs, gap / scale if differs else float("nan"))


def line(
    theta: Tensor, sizes: Sequence[int], gradient: Callable[[Tensor], Tensor], seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """A point near theta and a direction of the point's size, both the same at every call with one seed.

    The point is off theta by a hundredth of each parameter's size, so that it is on no kink on which a start often is
    (biases of 0). Half of the direction is random, half goes with the gradient, entry by entry with a random factor, so
    that a gradient that is wrong in one layer does not pass for being small along the line. Entries in which the
    gradient is 0 are left out if others of their parameter have one: a padding row, say, which training does not move.
    A parameter that has no gradient at all stays in, for it may be detached.

    Args:
        theta: shape (P,).
        sizes: of the parameters, which lie in theta one after the other.
        gradient: at a point.

    Returns:
        The point, the direction and the gradient at the point, shape (P,).
    """
    source = torch.Generator().manual_seed(seed)
    factors = torch.rand(theta.shape, generator=source, dtype=torch.float64, device="cpu").to(theta)
    normal = torch.randn(theta.shape, generator=source, dtype=torch.float64, device="cpu").to(theta)
    other = torch.randn(theta.shape, generator=source, dtype=torch.float64, device="cpu").to(theta)
    every = float(_rms(theta)) or 1.0
    scales = torch.cat(
        [part.new_full(part.shape, float(_rms(part)) or every) for part in theta.split(list(sizes))]
    )
    point = theta + 1e-2 * scales * normal
    along = gradient(point)
    moved = [(part != 0) | ~(part != 0).any() for part in along.split(list(sizes))]
    random = torch.where(torch.cat(moved), other * scales, 0.0)
    size = float(_norm(along))
    direction = random / (float(_norm(random)) or 1.0)
    if size:
        direction = direction + along * (0.5 + factors) / size
    return point, direction * (float(_norm(point)) / (float(_norm(direction)) or 1.0)), along


def steps(rounding: float) -> tuple[float, ...]:
    """h, from the largest down, for differences of what changes by its own size from 0 to 1.

    As small as rounding allows, for on the way between −h and h there may be kinks.
    """
    if rounding < _FINE:
        return tuple(1e-5 * 10.0**-k for k in range(6))
    return tuple(1e-2 * 4.0**-k for k in range(6))


def _norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor.double())
    return norm


def _rms(tensor: Tensor) -> Tensor:
    size: Tensor = _norm(tensor) / max(tensor.numel(), 1) ** 0.5
    return size
