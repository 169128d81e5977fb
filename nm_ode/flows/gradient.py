"""Gradient flow."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nm_ode.flows.base import regularised_gradient, require_plain
from nm_ode.loss import Problem
from nm_ode.optimizers import SGD


@dataclass(frozen=True)
class ThetaState:
    """For flows whose state is theta and nothing else."""

    problem: Problem

    def state_from(self, theta: Tensor, memory: Tensor | None = None) -> Tensor:
        return theta

    def theta_in(self, state: Tensor) -> Tensor:
        return state

    def scale(self, state: Tensor) -> None:
        return None


@dataclass(frozen=True)
class GradientFlow(ThetaState):
    """θ̇ = −(∇L(θ) + λθ), the limit of plain descent as η → 0 at fixed t = ηk.

    Args:
        problem: the loss.
        optimizer: only its weight decay λ enters; None for none.

    Raises:
        FlowError: an optimiser with momentum, or Adam, whose limit is not this flow.
    """

    optimizer: SGD | None = None
    name = "gradient"
    title = "gradient flow"
    expected_order = 1
    depends_on_lr = False
    gradients_per_rhs = 1
    hvps_per_rhs = 0
    third_derivatives_per_rhs = 0

    def __post_init__(self) -> None:
        if self.optimizer is not None:
            require_plain(self.optimizer, "gradient flow")

    def rhs(self, t: float, state: Tensor) -> Tensor:
        return regularised_gradient(self.problem, self.optimizer, state).neg_()

    def jvp(self, t: float, state: Tensor, v: Tensor) -> Tensor:
        """The field's Jacobian times v: −(H + λ)v."""
        product = self.problem.hvp(state, v)
        if self.optimizer is not None and self.optimizer.weight_decay:
            product.add_(v, alpha=self.optimizer.weight_decay)
        return product.neg_()
