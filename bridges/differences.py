"""Products with the Jacobian of a field that has none of its own: difference quotients (docs/bridge.md rule 13)."""

from __future__ import annotations

import math

import numpy as np

from bridges.problem import Array, Rhs, SolveStopped

_DIRECTIONS = 2
_APART = 0.1
_ROUNDINGS = 16.0
_CLOSER = 16.0


class DifferenceProduct:
    """(t, y, v) → (f(t, y + εw) − f(t, y))/ε · ‖v‖ along w = v/‖v‖, with ε = √noise · max(1, ‖y‖), norms by scales.

    The step does not depend on ‖v‖: iterative linear solvers ask with small directions, for which a step that does is
    lost in rounding. f(t, y) is kept while t and y stay the same, so that a product is one right-hand side.

    Where the first product is taken, quotients along two random directions are compared with those at half the step: of
    noise, or at a jump, they have nothing in common, and the less so the smaller the step.

    Args:
        rhs: the field.
        noise: its rounding noise, relative to it.
        scales: typical size of each entry of y, shape (n,); None if all are alike.
    """

    def __init__(
        self, rhs: Rhs, noise: float = float(np.finfo(np.float64).eps), scales: Array | None = None
    ) -> None:
        self._rhs, self._noise = rhs, noise
        self._scales = np.ones(1) if scales is None else scales
        self._t, self._y = math.nan, np.empty(0)
        self._at_y, self._moved = np.empty(0), np.empty(0)
        self._compared = False

    def __call__(self, t: float, y: Array, v: Array, out: Array) -> None:
        """Write the product with v into out.

        Raises:
            SolveStopped: the field is not smooth.
        """
        largest = float(np.abs(v).max())
        if largest == 0:
            out[:] = 0
            return
        self._keep(t, y)
        # Divided by its largest entry first: the squares of small entries would vanish.
        direction = v / largest
        length = self._norm(direction)
        step = math.sqrt(self._noise) * max(1.0, self._norm(y))
        if not self._compared:
            self._require_smooth(t, y, step, out)
            self._compared = True
        self._quotient(t, y, direction, step / length, out)
        out *= largest

    def _norm(self, y: Array) -> float:
        return float(np.linalg.norm(y / self._scales))

    def _keep(self, t: float, y: Array) -> None:
        if self._t == t and np.array_equal(self._y, y):
            return
        if self._y.shape != y.shape:
            self._y, self._at_y, self._moved = np.empty_like(y), np.empty_like(y), np.empty_like(y)
        self._t = math.nan  # the field may raise
        self._rhs(t, y, self._at_y)
        self._y[:], self._t = y, t

    def _quotient(self, t: float, y: Array, direction: Array, step: float, out: Array) -> None:
        np.multiply(direction, step, out=self._moved)
        self._moved += y
        self._rhs(t, self._moved, out)
        out -= self._at_y
        out /= step

    def _require_smooth(self, t: float, y: Array, step: float, out: Array) -> None:
        generator = np.random.default_rng(0)
        rounding = _ROUNDINGS * self._noise * self._norm(self._at_y) / step
        for _ in range(_DIRECTIONS):
            direction = generator.standard_normal(y.size)
            direction *= self._scales / np.linalg.norm(direction)
            apart, size = self._apart(t, y, direction, step, out)
            if apart <= _APART * size + rounding:
                continue
            # A field that curves much has quotients that come together.
            closer, _ = self._apart(t, y, direction, step / _CLOSER, out)
            if closer > apart + _CLOSER * rounding:
                raise SolveStopped(
                    "step_failure",
                    "the right-hand side is not smooth, and all but explicit methods need its Jacobian: its difference "
                    f"quotients, of size {size:.1e}, change by {apart:.1e} with their step",
                )

    def _apart(self, t: float, y: Array, direction: Array, step: float, out: Array) -> tuple[float, float]:
        """How far the quotient is from that at half the step, and its size."""
        half = np.empty_like(out)
        self._quotient(t, y, direction, step, out)
        self._quotient(t, y, direction, step / 2, half)
        half -= out
        return self._norm(half), self._norm(out)
