"""Gradient flow."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nm_ode.flows.base import FlowError
from nm_ode.optimizers import SGD
from nm_ode.problem import Problem


@dataclass(frozen=True)
class ThetaState:
    """For flows whose state is theta and nothing else."""

    problem: Problem

    def state_from(self, theta: Tensor) -> Tensor:
        return theta

    def theta_in(self, state: Tensor) -> Tensor:
        return state


@dataclass(frozen=True)
class GradientFlow(ThetaState):
    """θ̇ = −(∇L(θ) + λθ), the limit of plain descent as η → 0 at fixed t = ηk.

    Args:
        problem: the loss.
        optimizer: only its weight decay λ enters; None for none.

    Raises:
        FlowError: an optimiser with momentum, whose limit is not this flow.
    """

    optimizer: SGD | None = None
    name = "gradient"
    title = "gradient flow"
    expected_order = 1
    depends_on_lr = False
    gradients_per_rhs = 1
    hvps_per_rhs = 0

    def __post_init__(self) -> None:
        require_no_momentum(self.optimizer, "gradient flow")

    def rhs(self, t: float, state: Tensor) -> Tensor:
        field = self.problem.grad(state).neg_()
        if self.optimizer is not None and self.optimizer.weight_decay:
            field.add_(state, alpha=-self.optimizer.weight_decay)
        return field


def require_no_momentum(optimizer: SGD | None, flow: str) -> None:
    """Raises FlowError if the optimiser's state is more than theta."""
    if optimizer is not None and optimizer.momentum:
        raise FlowError(
            f"{flow} with momentum = {optimizer.momentum}: it is that of plain descent alone; set momentum = 0, or "
            "take the modified flow in iterated-map form"
        )
