"""How a central flow finds the edge of stability from one theta to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nm_ode.flows.central.edge import Edge
from nm_ode.flows.central.thirds import HowThird, ThirdDerivatives
from nm_ode.loss import Problem
from nm_ode.loss.critical import CriticalSpace, critical_space
from nm_ode.loss.operators import Hessian, SymmetricOperator

MOST_PRODUCTS = 3000
_AHEAD = 2.5  # times the last move of theta: so far vectors go on as before


class Search:
    """What is remembered from one theta to the next: it saves products, and changes what is found by its tolerance.

    Args:
        tol: of eigenvectors' residuals, over the largest eigenvalue.
    """

    def __init__(self, problem: Problem, third: HowThird, tol: float) -> None:
        self._problem, self._third, self._tol = problem, third, tol
        self.begin()

    def begin(self) -> None:
        """A path begins: what was found on another is forgotten, so that a solve does not depend on those before."""
        self._start: Tensor | None = None
        self._places: list[tuple[Tensor, Tensor]] = []  # the last two thetas, and the vectors there
        self.last: Edge | None = None
        self.thirds = ThirdDerivatives(self._problem, self._third)

    def sharpest(self, theta: Tensor) -> Tensor:
        """The direction of the largest eigenvalue, of norm 1, shape (P,)."""
        self._start = critical_space(Hessian(self._problem, theta), math.inf, start=self._start).start
        return self._start[0]

    @property
    def begun(self) -> bool:
        """Has anything been found yet?"""
        return self._start is not None

    def space(
        self,
        theta: Tensor,
        operator: SymmetricOperator,
        least: float,
        known: Sequence[tuple[Tensor, Tensor]],
    ) -> CriticalSpace:
        """The eigenpairs above a bound at theta.

        Args:
            known: vectors and the operator's products with them.
        """
        found = critical_space(
            operator,
            least,
            start=self._expected(theta),
            known=known,
            tol=self._tol,
            most=MOST_PRODUCTS,
        )
        self._start = found.start
        place = (theta.clone(), found.start[:-1])  # the last is no eigenvector
        if self._places and torch.equal(self._places[-1][0], theta):
            self._places[-1] = place
        else:
            self._places = [*self._places[-1:], place]
        return found

    def _expected(self, theta: Tensor) -> Tensor | None:
        """The vectors at theta if they go on from the last place as they came there from the one before."""
        if self._start is None or len(self._places) < 2:
            return self._start
        (before, old), (last, vectors) = self._places
        moved = last - before
        share = float((theta - last) @ moved) / float(moved @ moved)
        rows = min(len(old), len(vectors))
        if not rows or not abs(share) < _AHEAD:
            return self._start
        left, _, right = torch.linalg.svd(vectors[:rows] @ old[:rows].T)
        ahead = vectors[:rows] + share * (vectors[:rows] - left @ right @ old[:rows])
        return torch.cat([ahead, self._start[rows:]])
