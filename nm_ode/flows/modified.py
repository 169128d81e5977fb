"""Modified gradient flow: the equation whose time-η map is the optimiser's step (THEORY.md §4 A, B).

Backward error analysis: Hairer, Lubich, Wanner, "Geometric Numerical Integration", ch. IX.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Literal

import torch
from torch import Tensor

from nm_ode.flows.base import Flow, FlowError
from nm_ode.flows.gradient import GradientFlow, ThetaState, require_no_momentum
from nm_ode.optimizers import SGD
from nm_ode.problem import Problem

Form = Literal["iterated_map", "hessian"]


@dataclass(frozen=True)
class HessianForm(ThetaState):
    """Order 2 by the Hessian: θ̇ = −g − (η/2)Hg, with g and H of L + (λ/2)‖θ‖² (Kunin et al. 2021, §5).

    It is gradient flow on L + (λ/2)‖θ‖² + (η/4)‖g‖². One gradient and one exact Hessian–vector product an
    evaluation.
    """

    optimizer: SGD
    name = "modified_2_hessian"
    title = "modified flow, order 2, Hessian form"
    expected_order = 2
    gradients_per_rhs = 1
    hvps_per_rhs = 1

    def __post_init__(self) -> None:
        require_no_momentum(self.optimizer, "modified flow in Hessian form")

    def rhs(self, t: float, state: Tensor) -> Tensor:
        decay, lr = self.optimizer.weight_decay, self.optimizer.lr
        g = self.problem.grad(state)
        if decay:
            g = g.add_(state, alpha=decay)
        h_g = self.problem.hvp(state, g)
        if decay:
            h_g = h_g.add_(g, alpha=decay)
        return g.add_(h_g, alpha=lr / 2).neg_()


@dataclass(frozen=True)
class IteratedMapForm(ThetaState):
    """f_K(θ) = (1/h) Σ_{j=1}^{K} (−1)^{j+1}/j Δ^j θ, from the K iterates θ, Φ(θ), …, Φ^K(θ).

    The series of (1/h) log E in the forward difference Δ = E − 1. K gradients an evaluation, no Hessian.
    """

    optimizer: SGD
    order: int
    hvps_per_rhs = 0

    def __post_init__(self) -> None:
        require_no_momentum(self.optimizer, "modified flow in iterated-map form")

    @property
    def name(self) -> str:
        return f"modified_{self.order}_iterated_map"

    @property
    def title(self) -> str:
        return f"modified flow, order {self.order}, iterated-map form"

    @property
    def expected_order(self) -> int:
        return self.order

    @property
    def gradients_per_rhs(self) -> int:
        return self.order

    def rhs(self, t: float, state: Tensor) -> Tensor:
        # Weights on the increments u_i = Φ^{i+1}(θ) − Φ^i(θ), which are small, not on the iterates, which are
        # not: what is left of rounding is that of one subtraction, eps·|θ|/h.
        field = torch.zeros_like(state)
        theta = state
        for weight in increment_weights(self.order):
            after, _ = self.optimizer.update(theta, None, self.problem.grad(theta))
            field.add_(after - theta, alpha=weight / self.optimizer.time_per_step)
            theta = after
        return field


def increment_weights(order: int) -> list[float]:
    """c_i with Σ_{j≤K} (−1)^{j+1}/j Δ^j z_0 = Σ_{i<K} c_i (z_{i+1} − z_i); Σ c_i = 1.

    Δ^j z_0 = Δ^{j−1} u_0 = Σ_i (−1)^{j−1−i} C(j−1, i) u_i, so c_i = (−1)^i Σ_{j>i} C(j−1, i)/j.
    """
    return [(-1) ** i * sum(comb(j - 1, i) / j for j in range(i + 1, order + 1)) for i in range(order)]


def ModifiedFlow(  # noqa: N802 (reads as the class it stands for)
    problem: Problem, optimizer: SGD, order: int = 2, form: Form = "iterated_map"
) -> Flow:
    """The modified flow of `optimizer` on `problem`, matching its trajectory to O(η^order) at fixed time.

    Args:
        order: K ≥ 1; 1 is gradient flow.
        form: "iterated_map" (K gradients an evaluation) or "hessian" (K = 2: one gradient and one HVP).

    Raises:
        FlowError: an order or optimiser for which this form is not built.
    """
    if form not in ("iterated_map", "hessian"):
        raise FlowError(f"form must be 'iterated_map' or 'hessian'; {form!r} was given")
    if order < 1:
        raise FlowError(f"order must be at least 1; {order} was given")
    if order == 1:
        return GradientFlow(problem, optimizer)
    if form == "hessian":
        if order != 2:
            raise FlowError(
                f"the Hessian form is built for order 2, not {order}; the iterated-map form has every order"
            )
        return HessianForm(problem, optimizer)
    return IteratedMapForm(problem, optimizer, order)
