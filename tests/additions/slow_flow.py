"""A flow of one file: gradient flow at another speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from nm_ode.flows import Flow
from nm_ode.loss import Problem
from nm_ode.optimizers import Optimizer


@dataclass(frozen=True)
class SlowFlow(Flow):
    """θ̇ = −speed · ∇L(θ)."""

    problem: Problem
    optimizer: Optimizer
    speed: Annotated[float, Gt(0)] = 0.5

    name: ClassVar = "slow"
    title: ClassVar = "slow gradient flow"
    expected_order: ClassVar = 0
    depends_on_lr: ClassVar = False

    def rhs(self, t: float, state: Tensor) -> Tensor:
        return self.problem.grad(state).mul_(-self.speed)
