"""Does a gradient jump? Measured along a short segment, by going in on its largest change."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from nm_ode.loss.sums import bend, distance

_POINTS = 33  # on the segment, at first
_TRIED = 6  # intervals that are gone in on
_CONTRAST = 20.0  # times what changes beside it
_ALIKE = 0.1  # of the smallest jump: by which the changes in two halves may differ where there is none


@dataclass(frozen=True, eq=False)
class Segment:
    """A gradient along a segment, s from 0 to 1.

    A continuous gradient changes the less the shorter the interval, and as much as in the next one; a jump stays as
    large as it is.

    Args:
        gradient: s → shape (P,).
        eps: of the gradient's dtype.
    """

    gradient: Callable[[float], Tensor]
    eps: float

    @property
    def narrowest(self) -> float:
        """Width to which an interval is halved: above the rounding of theta, and of a gradient that changes with it."""
        return max(math.sqrt(self.eps), 2.0**-28)

    @property
    def smallest_jump(self) -> float:
        """Relative to the gradient: what is smaller may be the rounding of a lower precision inside the model."""
        return max(1e-6, 1e3 * self.eps)

    def jumps_within(self, left: float, right: float) -> bool:
        """Is there a jump in a narrow interval? It is held against the intervals beside it, and against rounding."""
        width = right - left
        (before, here, after), scale = self._changes([left - width, left, right, right + width])
        return here > max(_CONTRAST * max(before, after), self.smallest_jump * scale)

    @cached_property
    def has_jump(self) -> bool:
        """Is there a jump that can be found by the gradient's changes alone?"""
        points = [i / (_POINTS - 1) for i in range(_POINTS)]
        changes, _ = self._changes(points)
        if not all(map(math.isfinite, changes)):
            return False
        narrowed = (self._narrowed(points[i], points[i + 1]) for i in _suspects(changes))
        return any(interval is not None and self.jumps_within(*interval) for interval in narrowed)

    def _changes(self, points: Sequence[float]) -> tuple[list[float], float]:
        """How much the gradient changes from point to point, and its largest norm; two gradients are kept at a time."""
        last = self.gradient(points[0])
        changes, scale = [], float(last.norm())
        for s in points[1:]:
            here = self.gradient(s)
            changes.append(float(distance(here, last)))
            scale, last = max(scale, float(here.norm())), here
        return changes, scale

    def _narrowed(self, left: float, right: float) -> tuple[float, float] | None:
        """The half with the larger change, again and again; None once both change alike, as no jump lets them.

        Twice in succession, for jumps in both halves may be alike.
        """
        at_left, at_right = self.gradient(left), self.gradient(right)
        small = _ALIKE * self.smallest_jump * float(at_left.norm())
        alike = 0
        while right - left > self.narrowest:
            middle = (left + right) / 2
            here = self.gradient(middle)
            goes_left = bool(distance(here, at_left) >= distance(at_right, here))
            alike = alike + 1 if float(bend(at_left, here, at_right)) < small else 0
            if alike == 2:
                return None
            if goes_left:
                right, at_right = middle, here
            else:
                left, at_left = middle, here
        return left, right


def crossing(
    side: Callable[[float], Hashable], left: float, right: float, width: float
) -> tuple[float, float]:
    """An interval of this width in which the side changes, in one in which it does."""
    at_left = side(left)
    while right - left > width:
        middle = (left + right) / 2
        if side(middle) != at_left:
            right = middle
        else:
            left = middle
    return left, right


def _suspects(changes: Sequence[float]) -> Sequence[int]:
    """Intervals with the largest changes, and with the largest beyond those beside them."""
    padded = [changes[1], *changes, changes[-2]]
    beyond = [here - (padded[i] + padded[i + 2]) / 2 for i, here in enumerate(changes)]
    by_size = [sorted(range(len(kind)), key=kind.__getitem__, reverse=True) for kind in (beyond, changes)]
    return list(dict.fromkeys(i for order in by_size for i in order[: _TRIED // 2]))
