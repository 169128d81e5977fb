"""Gradient flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nm_ode.flows.base import Descent, Flow, JacobianProduct, regularised_gradient, require_plain
from nm_ode.loss import Problem


@dataclass(frozen=True)
class GradientFlow(Flow):
    """θ̇ = −(∇L(θ) + λθ), the limit of plain descent as η → 0 at fixed t = ηk (docs/theory.md §4). State θ.

    Args:
        problem: the loss.
        optimizer: only its weight decay λ enters; None for none.

    Raises:
        FlowError: an optimiser with momentum, or Adam, whose limit is not this flow.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> solution = nm_ode.solve(nm_ode.GradientFlow(problem), t=[0.0, 0.5, 1.0])
        >>> solution.theta.shape, solution.loss.values.round(3)
        ((3, 11), array([0.912, 0.553, 0.5  ]))
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
