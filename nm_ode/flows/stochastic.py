"""The stochastic modified equation: a diffusion that SGD's distribution follows (docs/theory.md §4.8 (iii))."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from nm_ode.flows.base import Descent, as_order, regularised_gradient, regularised_hvp, require_plain
from nm_ode.loss import Problem
from nm_ode.loss.given import require_problem


@dataclass(frozen=True, eq=False)
class StochasticModifiedFlow:
    """dθ = −∇(L + (η/4)‖∇L‖²) dt + √η Σ^{1/2} dW, with L + (λ/2)‖θ‖² for L; order 1 leaves the second term out.

    Compared with SGD in distribution, never path by path (Li, Tai, E 2019, §3; order 2 is their second-order equation).
    Σ is the covariance of a batch's gradient, taken constant in θ: `nm_ode.gradient_noise` at a point of the path.

    Args:
        diffusion: Σ's factor B, shape (r, P), or its diagonal's root, shape (P,), both without √η.
        order: weak order in lr.

    Raises:
        FlowError: momentum, another optimiser, or another order.
    """

    problem: Problem
    optimizer: Descent
    diffusion: Tensor
    order: int = 2

    def __post_init__(self) -> None:
        require_problem(self.problem)
        require_plain(self.optimizer, "stochastic modified flow")
        object.__setattr__(self, "order", as_order(self.order, "the stochastic modified flow", (1, 2)))

    @property
    def name(self) -> str:
        return f"stochastic_{self.order}"

    @property
    def title(self) -> str:
        return f"stochastic modified flow, order {self.order}"

    @property
    def factor(self) -> Tensor:
        """√η B: what multiplies the Wiener process's increments."""
        return self.diffusion * math.sqrt(self.optimizer.lr)

    def drift(self, theta: Tensor) -> Tensor:
        """Of the mean, shape (P,)."""
        g = regularised_gradient(self.problem, self.optimizer, theta)
        if self.order == 1:
            return g.neg_()
        h_g = regularised_hvp(self.problem, self.optimizer, theta, g)
        return g.add_(h_g, alpha=self.optimizer.lr / 2).neg_()
