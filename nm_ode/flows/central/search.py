"""How a central flow finds the edge of stability from one theta to the next."""

from __future__ import annotations

import math

from torch import Tensor

from nm_ode.flows.central.edge import Edge
from nm_ode.flows.central.thirds import HowThird, ThirdDerivatives
from nm_ode.loss import Problem
from nm_ode.loss.critical import CriticalSpace, critical_space
from nm_ode.loss.operators import Hessian, SymmetricOperator

MOST_PRODUCTS = 3000


class Search:
    """What is remembered from one theta to the next: it saves products, and changes what is found by its tolerance.

    Args:
        tol: of eigenvectors' residuals, over the largest eigenvalue.
    """

    def __init__(self, problem: Problem, third: HowThird, tol: float) -> None:
        self._problem, self._tol = problem, tol
        self._start: Tensor | None = None
        self.last: Edge | None = None
        self.thirds = ThirdDerivatives(problem, third)

    def sharpest(self, theta: Tensor) -> Tensor:
        """The direction of the largest eigenvalue, of norm 1, shape (P,)."""
        self._start = critical_space(Hessian(self._problem, theta), math.inf, start=self._start).start
        return self._start[0]

    def space(self, operator: SymmetricOperator, least: float, known: tuple[Tensor, Tensor]) -> CriticalSpace:
        found = critical_space(
            operator,
            least,
            start=self._start,
            known=[known],
            tol=self._tol,
            most=MOST_PRODUCTS,
        )
        self._start = found.start
        return found
