"""T_ij = ∇(u_iᵀH u_j) for all pairs of some directions: exactly, or by differences of gradients where they agree."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from nm_ode.flows.base import FlowError
from nm_ode.loss import Problem

HowThird = Literal["auto", "exact", "differences"]

_SHARE = 3e-4  # of the length over which curvature changes: rounding and truncation of a difference are alike there
_EQUAL = 1e-6  # relative: differences that are no farther from the exact derivative take its place


class ThirdDerivatives:
    """Third derivatives of a problem's loss along pairs of directions of norm 1.

    A second difference of gradients takes two gradients, where an exact third derivative takes the time of six. "auto"
    takes differences if the first of them is equal to the exact one, in float64 alone.

    Args:
        how: "auto", "exact" or "differences".
    """

    def __init__(self, problem: Problem, how: HowThird = "auto") -> None:
        self._problem, self._how = problem, how
        self._step: float | None = None

    def along(self, theta: Tensor, gradient: Tensor, directions: Tensor) -> Tensor:
        """Shape (k, k, P), symmetric in the first two.

        Args:
            gradient: at theta, of the loss alone.
            directions: shape (k, P), orthonormal rows.
        """
        k = len(directions)
        found = directions.new_empty(k, k, directions.shape[1])
        for i in range(k):
            found[i, i] = self._one(theta, gradient, directions[i])
        for i in range(k):
            for j in range(i):
                both = self._one(theta, gradient, (directions[i] + directions[j]) / math.sqrt(2.0))
                found[i, j] = found[j, i] = both - (found[i, i] + found[j, j]) / 2
        return found

    def _one(self, theta: Tensor, gradient: Tensor, direction: Tensor) -> Tensor:
        """∇³L[v, v] of a direction of norm 1."""
        if self._how == "auto":
            return self._settled(theta, gradient, direction)
        if self._how == "differences" and self._step is None:
            return self._required(theta, gradient, direction)
        if self._how == "exact" or self._step is None:
            return self._problem.third_derivative(theta, direction)
        return self._difference(theta, gradient, direction, self._step)

    def _required(self, theta: Tensor, gradient: Tensor, direction: Tensor) -> Tensor:
        """The first, where differences are asked for.

        Raises:
            FlowError: they are not equal to the exact one.
        """
        exact = self._problem.third_derivative(theta, direction)
        step = self._length(theta, direction, exact)
        if step is None:
            return exact  # and a later one tells how long a step is
        off = self._off(theta, gradient, direction, exact, step)
        if not off <= _EQUAL:
            raise FlowError(
                f"third = 'differences': in {theta.dtype} third derivatives by differences of gradients are off by "
                f"{off:.0e} of their size here: take 'auto' or 'exact'"
            )
        self._step = step
        return exact

    def _settled(self, theta: Tensor, gradient: Tensor, direction: Tensor) -> Tensor:
        """The first: exact; and which of both is taken from here on."""
        exact = self._problem.third_derivative(theta, direction)
        step = self._length(theta, direction, exact)
        self._how = "exact"
        double = theta.dtype == torch.float64
        if step is not None and double and self._off(theta, gradient, direction, exact, step) <= _EQUAL:
            self._how, self._step = "differences", step
        return exact

    def _off(self, theta: Tensor, gradient: Tensor, direction: Tensor, exact: Tensor, step: float) -> float:
        near = self._difference(theta, gradient, direction, step)
        return float((near - exact).norm() / exact.norm())

    def _length(self, theta: Tensor, direction: Tensor, exact: Tensor) -> float | None:
        """The step of a difference, a power of two; None where the loss is quadratic."""
        size = float(exact.norm())
        curvature = abs(float(direction @ self._problem.hvp(theta, direction)))
        if not (size > 0 and curvature > 0):
            return None
        return float(2.0 ** round(math.log2(_SHARE * curvature / size)))

    def _difference(self, theta: Tensor, gradient: Tensor, direction: Tensor, step: float) -> Tensor:
        ahead = self._problem.grad(theta.add(direction, alpha=step))
        back = self._problem.grad(theta.sub(direction, alpha=step))
        return ahead.add_(back).sub_(gradient, alpha=2.0).div_(step**2)
