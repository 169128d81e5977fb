"""The oscillation's own growth before it is what the central flow says: from the start's transient, or from rounding.

ℓ, the logarithm of its variance, is a number of the state. Until the variance is as large as the central flow's, the
path is bent by no more of it than there is; from then on it is the central flow's (docs/theory.md §4.10).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from nm_ode.flows.base import Descent, FlowError, regularised_gradient
from nm_ode.flows.growth import Recursion
from nm_ode.loss import Problem
from nm_ode.loss.rounding import gradient_rounding_along, rounding_along

SIZE = 3  # numbers at the end of the state
WATCHED = 30  # steps of descent itself that are taken at the start, and how long its own transient is left to itself
_LEAST = -4.0  # of a step's growth: below the edge it is at the floor soon, whatever it is
_LOWEST = 1.0  # how far below what a step adds ℓ is told from what is even lower
_GROWN = 30.0  # ℓ of an oscillation that has been the central flow's: no other is as large
_SMALLEST = 1e-300  # of a variance
_SETTLED = 60.0  # where it goes then
_SETTLING = 20.0  # in so many steps


@dataclass(frozen=True)
class Seed:
    """What an oscillation grows from.

    Attributes:
        variance: after the steps that were watched.
        noise: variance of what rounding adds in a step.
    """

    variance: float
    noise: float


def watched(problem: Problem, optimizer: Descent, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Some steps of descent from theta: where it is on average after them, and what it is then off by, (−1)^k δ.

    Raises:
        FlowError: descent diverges.
    """
    at, last = theta.clone(), deque([theta], maxlen=3)
    for _ in range(WATCHED + 1):
        at = at.sub(regularised_gradient(problem, optimizer, at), alpha=optimizer.lr)
        last.append(at)
    if not bool(at.isfinite().all()):
        raise FlowError(
            f"central flow, delayed: of the first {WATCHED + 1} steps of descent, in which it sees how the "
            "oscillation begins, one is not finite: start nearer to the edge of stability, take a smaller lr, or set "
            "delayed = False"
        )
    before, middle, after = last
    return (before + 2 * middle + after) / 4, (before - 2 * middle + after) / 4


def seed_of(problem: Problem, optimizer: Descent, theta: Tensor, vector: Tensor, off: Tensor) -> Seed:
    """Along the sharpest direction, of norm 1."""
    along = float(vector.double() @ off.double())
    rounding = rounding_along(theta, vector)
    of_gradient = optimizer.lr * gradient_rounding_along(problem, theta, vector)
    noise = rounding**2 + of_gradient**2
    return Seed(max(along**2, noise), noise)


@dataclass(frozen=True)
class Delay:
    """The last three numbers of the state of a delayed flow.

    Attributes:
        log_variance: ℓ.
        steps: since the start.
        noise: variance of what rounding adds in a step; it stays what it is.
    """

    log_variance: float
    steps: float
    noise: float

    @classmethod
    def begun(cls, seed: Seed) -> Delay:
        return cls(math.log(max(seed.variance, _SMALLEST)), 0.0, seed.noise)

    def after(self, theta: Tensor) -> Tensor:
        """The whole state."""
        own = torch.tensor([self.log_variance, self.steps, self.noise], dtype=torch.float64)
        return torch.cat([theta, own.to(theta)])

    @classmethod
    def of(cls, state: Tensor) -> Delay:
        return cls(*state[-SIZE:].double().tolist())

    def share(self, needed: float) -> float:
        """What there is of the central flow's oscillation, of variance `needed`."""
        if self.log_variance > _GROWN or not needed > 0:
            return 1.0
        return min(1.0, math.exp(self.log_variance - math.log(needed)))

    def rates(self, largest: float, needed: float, lr: float) -> list[float]:
        """d/dt of the three.

        Args:
            largest: lr times the largest eigenvalue.
            needed: the variance of the central flow there.
        """
        return [self._grows(largest, needed)[0] / lr, 1 / lr, 0.0]

    def stiffness(self, largest: float, needed: float, lr: float) -> float:
        """What the first of the rates changes by with ℓ; arguments as of `rates`."""
        return self._grows(largest, needed)[1] / lr

    def _grows(self, largest: float, needed: float) -> tuple[float, float]:
        """How ℓ changes in a step, and how that goes with ℓ.

        v' = r²v + n of a variance v is, between steps, dv/dk = g (v − v̄) with g = log r² and v̄ = n/(1 − r²).
        """
        if self.steps < WATCHED:
            return 0.0, 0.0
        reached = needed > 0 and self.log_variance >= math.log(needed)
        if reached or self.log_variance > _GROWN:
            return (_SETTLED - self.log_variance) / _SETTLING, -1 / _SETTLING
        growth = max(2 * Recursion().log_factor(largest), _LEAST)
        if not self.noise > 0:
            return growth, 0.0
        below = math.log(self.noise) - self.log_variance
        added = math.exp(min(below, _LOWEST)) * (growth / math.expm1(growth) if growth else 1.0)
        return growth + added, -added if below < _LOWEST else 0.0
