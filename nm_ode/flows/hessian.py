"""Modified flow of plain descent in Hessian form (docs/theory.md §4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nm_ode.flows.base import (
    Cost,
    Descent,
    Flow,
    FlowError,
    as_order,
    regularised_gradient,
    regularised_hvp,
    require_plain,
)
from nm_ode.loss import Problem


@dataclass(frozen=True)
class HessianFlow(Flow):
    """θ̇ = −g − (η/2)Hg − η²(⅓HHg + (1/12)∇³L[g,g]), with L + (λ/2)‖θ‖² for L; order 2 leaves the last term out.

    To order 2 it is gradient flow on L + (η/4)‖g‖² (Kunin et al. 2021, §5). One gradient and one exact
    Hessian product an evaluation; to order 3 another product and a contraction of the third derivative.

    Raises:
        FlowError: another order than 2 or 3, or an optimiser other than plain descent.
    """

    problem: Problem
    optimizer: Descent
    order: int = 2
    depends_on_lr: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_plain(self.optimizer, "modified flow in Hessian form")
        try:
            object.__setattr__(self, "order", as_order(self.order, "the Hessian form", (2, 3)))
        except FlowError as error:
            raise FlowError(f"{error}; the iterated-map form has every order") from None

    @property
    def name(self) -> str:
        return f"modified_{self.order}_hessian"

    @property
    def title(self) -> str:
        return f"modified flow, order {self.order}, Hessian form"

    @property
    def expected_order(self) -> int:
        return self.order

    @property
    def cost(self) -> Cost:
        return Cost(hvps=self.order - 1, third_derivatives=self.order - 2)

    def rhs(self, t: float, state: Tensor) -> Tensor:
        lr = self.optimizer.lr
        g = regularised_gradient(self.problem, self.optimizer, state)
        h_g = regularised_hvp(self.problem, self.optimizer, state, g)
        field = g.add(h_g, alpha=lr / 2)
        if self.order == 3:
            field.add_(regularised_hvp(self.problem, self.optimizer, state, h_g), alpha=lr**2 / 3)
            field.add_(self.problem.third_derivative(state, g), alpha=lr**2 / 12)
        return field.neg_()
