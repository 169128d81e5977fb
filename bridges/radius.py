"""The spectral radius of a field's Jacobian, by power iteration on difference quotients, in vectors that are there."""

from __future__ import annotations

import math

import numpy as np

from bridges.arithmetic import Arithmetic
from bridges.problem import Array, OdeProblem, Rhs, SolveStopped
from bridges.vectors import Vector, like, on_host

_BOUND = 1.2
"""What is found is below the radius, by less than this (Sommeijer, Shampine and Verwer 1997)."""

_ALIKE = 0.05
_TILT = (
    0.01  # of the field itself in the direction: an eigenvalue that has become the largest is seen by that
)
_MOST = 30


class PowerIteration:
    """A bound on the radius at (t, y), each time from the direction that was found before: one vector is kept."""

    def __init__(self, problem: OdeProblem, rhs: Rhs, arithmetic: Arithmetic) -> None:
        self._rhs, self._do, self._scales = rhs, arithmetic, problem.scales
        self._size = math.sqrt(max(problem.noise, arithmetic.rounding))
        self._direction: Vector = None
        self._before = 0.0  # what the direction gave
        if "direction" in problem.memory:
            self._direction = arithmetic.of_field()
            self._direction.copy_(like(problem.y0, problem.memory["direction"]))
            self._before = float(problem.memory["found"][0])

    def __call__(self, t: float, y: Vector, moved: Vector, rate: Vector, room: Vector) -> float:
        """The bound at (t, y), where the field is `rate`; `moved` and `room` are of the field's dtype, and overwritten.

        Raises:
            SolveStopped: the field near by is not finite.
        """
        do = self._do
        if self._direction is None:
            self._direction = do.of_field()
        if not self._before > 0:
            do.begin(self._direction, rate, self._scales)
        else:
            do.tilt(self._direction, rate, self._scales, _TILT)
        size = self._size * max(1.0, do.length(y, self._scales))
        radius = self._before
        for _ in range(_MOST):
            do.shift(moved, y, self._direction, size, self._scales)
            self._rhs(t, moved, room)
            before, radius = radius, do.quotient(self._direction, room, rate, size, self._scales)
            if not math.isfinite(radius):
                raise SolveStopped("non_finite", "the spectral radius of the Jacobian is not finite")
            if not radius > 0 or abs(radius - before) <= _ALIKE * radius:
                break
        self._before = radius
        return _BOUND * radius

    def memory(self) -> dict[str, Array]:
        """The direction, and the radius that it gave; nothing before the first, and where there was none."""
        if not self._before > 0:
            return {}
        return {"direction": on_host(self._direction), "found": np.array([self._before])}
