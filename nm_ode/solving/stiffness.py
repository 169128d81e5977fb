"""How stiff is a field? The spectral radius of its Jacobian, by power iteration on difference quotients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridges import Rhs
from nm_ode.solving.field import Array, Field


def spectral_radius(
    field: Field,
    t: float,
    y: Array,
    scales: Array | None = None,
    iterations: int = 6,
    seed: int = 0,
) -> float:
    """|λ|_max of the field's Jacobian at (t, y).

    For gradient flow it is the sharpness. `iterations` + 1 right-hand sides; good to some ten percent,
    which is enough to tell stiff from not. Eigenvalues do not see `scales`; the difference quotient does, which must
    not push a second moment of 1e-12 below zero.
    """
    return _power_iteration(field.rhs, field.noise, t, y, scales, None, iterations, seed)[0]


class SharpnessBound:
    """A bound on the spectral radius along a solve, each time from the direction that was found before.

    Args:
        noise: rounding noise of the field relative to it, dimensionless.
        scales: typical size of each entry of the state; None if all are alike.
    """

    def __init__(self, noise: float, scales: Array | None) -> None:
        self._noise, self._scales = noise, scales
        self._direction: NDArray[np.float64] | None = None

    def __call__(self, t: float, y: Array, rhs: Rhs) -> float:
        fresh = self._direction is None
        radius, self._direction = _power_iteration(
            rhs, self._noise, t, y.copy(), self._scales, self._direction, iterations=8 if fresh else 2
        )
        return 1.2 * radius


def _power_iteration(
    rhs: Rhs,
    noise: float,
    t: float,
    y: Array,
    scales: Array | None,
    direction: Array | None,
    iterations: int,
    seed: int = 0,
) -> tuple[float, Array | None]:
    """The radius and the direction that it was found along, to start from near by; None for no radius."""
    if scales is None:
        scales = np.ones(1)
    size = float(np.sqrt(noise)) * max(1.0, float(np.linalg.norm(y / scales)))
    at_y, moved = np.empty_like(y), np.empty_like(y)
    rhs(t, y, at_y)
    if direction is None:
        # The gradient itself leans towards the steep directions; a little noise keeps every direction in play.
        direction = at_y / scales
        direction = direction / max(float(np.linalg.norm(direction)), np.finfo(float).tiny)
        direction = direction + 0.1 * np.random.default_rng(seed).standard_normal(y.size) / np.sqrt(y.size)
    radius = 0.0
    for _ in range(iterations):
        direction = direction / np.linalg.norm(direction)
        rhs(t, y + size * direction * scales, moved)
        direction = (moved - at_y) / scales / size
        radius = float(np.linalg.norm(direction))
        if not radius > 0:
            return 0.0, None
    return radius, direction
