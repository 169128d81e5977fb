"""How stiff is a field? The spectral radius of its Jacobian, by power iteration on difference quotients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from bridges import Rhs
from bridges.vectors import Vector, norm
from nm_ode.solving.field import Array, Field

_DRAWN = 2**20  # random numbers at a time
_Field: TypeAlias = Callable[[float, Tensor, Tensor], None]


def spectral_radius(
    field: Field,
    t: float,
    y: Vector,
    scales: Vector | None = None,
    iterations: int = 6,
    seed: int = 0,
) -> float:
    """|λ|_max of the field's Jacobian at (t, y).

    For gradient flow it is the sharpness. `iterations` + 1 right-hand sides; good to some ten percent,
    which is enough to tell stiff from not. Eigenvalues do not see `scales`; the difference quotient does, which must
    not push a second moment of 1e-12 below zero. In vectors of the problem's dtype, on its device.
    """
    return _power_iteration(field.rhs, field.noise, t, field.state(y), scales, None, iterations, seed)[0]


class SharpnessBound:
    """A bound on the spectral radius along a solve, each time from the direction that was found before.

    For engines on the host: it holds that direction, one vector of the state's size, and four more while it is
    measured, of float64.

    Args:
        noise: rounding noise of the field relative to it, dimensionless.
        scales: typical size of each entry of the state; None if all are alike.
    """

    def __init__(self, noise: float, scales: Array | None) -> None:
        self._noise, self._scales = noise, scales
        self._direction: Tensor | None = None

    def __call__(self, t: float, y: Array, rhs: Rhs) -> float:
        def field(t: float, y: Tensor, dy: Tensor) -> None:
            rhs(t, y.numpy(), dy.numpy())

        fresh, state = self._direction is None, torch.from_numpy(y.copy())
        radius, self._direction = _power_iteration(
            field, self._noise, t, state, self._scales, self._direction, iterations=8 if fresh else 2
        )
        return 1.2 * radius


def _power_iteration(
    rhs: _Field,
    noise: float,
    t: float,
    y: Tensor,
    scales: Vector | None,
    direction: Tensor | None,
    iterations: int,
    seed: int = 0,
) -> tuple[float, Tensor | None]:
    """The radius and the direction that it was found along, to start from near by; None for no radius.

    Args:
        direction: to start from; it is written to.
    """
    sizes = None if scales is None else torch.as_tensor(scales).to(y)
    size = float(np.sqrt(noise)) * max(1.0, norm(y if sizes is None else y / sizes))
    at_y, point = torch.empty_like(y), torch.empty_like(y)
    rhs(t, y, at_y)
    if direction is None:
        # The gradient itself leans towards the steep directions; a little noise keeps every direction in play.
        direction = at_y.clone() if sizes is None else at_y / sizes
        direction.div_(max(norm(direction), np.finfo(float).tiny))
        _add_noise(direction, 0.1 / float(np.sqrt(len(y))), seed)
    moved, radius = torch.empty_like(y), 0.0
    for _ in range(iterations):
        direction.div_(norm(direction))
        torch.mul(direction, size, out=point)
        if sizes is not None:
            point.mul_(sizes)
        rhs(t, point.add_(y), moved)
        moved.sub_(at_y)
        if sizes is not None:
            moved.div_(sizes)
        direction, moved = moved.div_(size), direction
        radius = norm(direction)
        if not radius > 0:
            return 0.0, None
    return radius, direction


def _add_noise(vector: Tensor, size: float, seed: int) -> None:
    """Independent normal numbers, the same on every device."""
    drawn = np.random.default_rng(seed)
    for piece in vector.split(_DRAWN):
        piece.add_(torch.from_numpy(drawn.standard_normal(len(piece))).to(piece), alpha=size)
