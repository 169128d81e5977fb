"""Gradient flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nm_ode.flows.base import Descent, Flow, JacobianProduct, regularised_gradient, require_plain
from nm_ode.loss import Problem


@dataclass(frozen=True)
class GradientFlow(Flow):
    """θ̇ = −(∇L(θ) + λθ), the limit of plain descent as η → 0 at fixed t = ηk.

    Args:
        problem: the loss.
        optimizer: only its weight decay λ enters; None for none.

    Raises:
        FlowError: an optimiser with momentum, or Adam, whose limit is not this flow.
    """

    problem: Problem
    optimizer: Descent | None = None
    name: ClassVar = "gradient"
    title: ClassVar = "gradient flow"
    expected_order: ClassVar = 1
    depends_on_lr: ClassVar = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer is not None:
            require_plain(self.optimizer, "gradient flow")

    def rhs(self, t: float, state: Tensor, out: Tensor | None = None) -> Tensor:
        return regularised_gradient(self.problem, self.optimizer, state, out).neg_()

    @property
    def jvp(self) -> JacobianProduct:
        """−(H + λ)v."""
        return self._jvp

    def _jvp(self, t: float, state: Tensor, v: Tensor) -> Tensor:
        product = self.problem.hvp(state, v)
        if self.optimizer is not None and self.optimizer.weight_decay:
            product.add_(v, alpha=self.optimizer.weight_decay)
        return product.neg_()
