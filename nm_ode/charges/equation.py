"""A continuous law of motion as a differential equation, for an engine to solve (docs/theory.md §3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChargeEquation:
    """m R̈ + b Ṙ + κR = F (order 2), or Ṙ = −κR + F (order 1), for all charges Q = R + A of a run.

    The recorded drivers and the learning rate are constant over each step and jump between, so the field is smooth
    on one step at a time.

    Attributes:
        order: in time.
        m, b, force: of every step, shape (N, C); m and b are ones and zeros for order 1.
        kappa: shape (C,).
        start: state at t = 0: R, or (R, Ṙ) one after the other.
        times: flow time at each step's start and at the end, shape (N+1,).
        added: A, what needs no solving, shape (N+1, C).
    """

    order: Literal[1, 2]
    m: Array
    b: Array
    force: Array
    kappa: Array
    start: Array
    times: Array
    added: Array

    def solved_in(self, state: Array) -> Array:
        """R, shape (C,)."""
        return state[: self.kappa.size]

    def rhs(self, k: int, state: Array) -> Array:
        """d state / dt during step k, same shape as `start`."""
        if self.order == 1:
            return np.asarray(self.force[k] - self.kappa * state)
        charge, rate = np.split(state, 2)
        return np.concatenate([rate, (self.force[k] - self.b[k] * rate - self.kappa * charge) / self.m[k]])
