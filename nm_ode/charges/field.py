"""The continuous laws of motion of the charges as vector fields, for an engine to solve (THEORY.md §3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.charges.laws import (
    Driven,
    LawError,
    decay_rate,
    driven,
    force,
    oscillator,
    require_first_order,
    start_rate,
)

Array = NDArray[np.float64]
Order = Literal[1, 2]


@dataclass(frozen=True, eq=False)
class ChargeLaw:
    """All charges of a run: m Q̈ + b Q̇ + κQ = F (order 2), or Q̇ = −κQ + F (order 1).

    The recorded drivers and the learning rate are constant over each step and jump between, so the field is smooth
    on one step at a time.

    Args:
        run: drivers and hyper-parameters.
        order: in time. 1 is for plain descent alone.

    Raises:
        LawError: order 1 with momentum.
    """

    run: Driven
    order: Order = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise LawError(f"order must be 1 or 2; {self.order} was given")
        if self.order == 1:
            require_first_order(self.run)

    @classmethod
    def of(cls, run: xr.Dataset, law: str) -> ChargeLaw:
        """From a run of `train(..., symmetries=...)` and the law's name."""
        orders: dict[str, Order] = {"first_order": 1, "second_order": 2}
        if law not in orders:
            raise LawError(f"{law!r} is no differential equation; there are {', '.join(orders)}")
        return cls(driven(run), orders[law])

    @property
    def times(self) -> Array:
        """Flow time at each step's start and at the end, shape (N+1,)."""
        return np.append(0.0, np.cumsum(self.run.lr)) * self.run.time_factor

    @property
    def start(self) -> Array:
        """State at t = 0: Q, or (Q, Q̇) one after the other."""
        if self.order == 1:
            return self.run.start.copy()
        return np.concatenate([self.run.start, start_rate(self.run)])

    def charge_in(self, state: Array) -> Array:
        """Q, shape (C,)."""
        return state[: self.run.start.size]

    def coefficients(self) -> tuple[Array, Array, Array, Array]:
        """m, b and F of every step, shape (N, C), and κ, shape (C,); m and b are ones and zeros for order 1."""
        steps = range(len(self.run.lr))
        forces = np.stack([np.broadcast_to(force(self.run, k), self.run.start.shape) for k in steps])
        kappa = np.asarray(decay_rate(self.run))
        if self.order == 1:
            return np.ones_like(forces), np.zeros_like(forces), forces, kappa
        m, b = (np.stack(part) for part in zip(*map(self._oscillators, steps), strict=True))
        return m, b, forces, kappa

    def _oscillators(self, k: int) -> tuple[Array, Array]:
        """m and b during step k, shape (C,)."""
        free, driven_by = (oscillator(self.run, k, translation=which) for which in (True, False))
        translation = self.run.translation
        return (
            np.where(translation, float(free[0]), float(driven_by[0])),
            np.where(translation, float(free[1]), float(driven_by[1])),
        )

    def rhs(self, k: int, state: Array) -> Array:
        """d state / dt during step k, same shape as `start`."""
        kappa, driving = decay_rate(self.run), force(self.run, k)
        if self.order == 1:
            return driving - kappa * state
        charge, rate = np.split(state, 2)
        m, b = self._oscillators(k)
        return np.concatenate([rate, (driving - b * rate - kappa * charge) / m])
