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
    depends_on_lr = True
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
class IteratedMapForm:
    """f_K(z) = (1/h) Σ_{j=1}^{K} (−1)^{j+1}/j Δ^j z, from the K iterates z, Φ(z), …, Φ^K(z).

    The series of (1/h) log E in the forward difference Δ = E − 1. K gradients an evaluation, no Hessian. The state z
    is the optimiser's: theta, and with momentum theta and the velocity, one after the other. There the velocity's
    own relaxation, Δ of size 1 − β, is followed to (1−β)^K, and all else to (η λ_max)^K (THEORY.md §4 B).
    """

    problem: Problem
    optimizer: SGD
    order: int
    depends_on_lr = True
    hvps_per_rhs = 0

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

    def state_from(self, theta: Tensor) -> Tensor:
        if not self.optimizer.momentum:
            return theta
        velocity = self.optimizer.velocity_at_rest(theta, self.problem.grad(theta))
        assert velocity is not None
        return torch.cat([theta, velocity])

    def theta_in(self, state: Tensor) -> Tensor:
        return state[: self.problem.layout.size]

    def rhs(self, t: float, state: Tensor) -> Tensor:
        # Weights on the increments u_i = Φ^{i+1}(z) − Φ^i(z), which are small, not on the iterates, which are
        # not: what is left of rounding is that of one subtraction, eps·|z|/h.
        size = self.problem.layout.size
        field = torch.zeros_like(state)
        theta, velocity = state[:size], state[size:] if self.optimizer.momentum else None
        for weight in increment_weights(self.order):
            after, velocity_after = self.optimizer.update(theta, velocity, self.problem.grad(theta))
            share = weight / self.optimizer.time_per_step
            field[:size].add_(after - theta, alpha=share)
            if velocity is not None and velocity_after is not None:
                field[size:].add_(velocity_after - velocity, alpha=share)
            theta, velocity = after, velocity_after
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
        order: K ≥ 1; 1 is gradient flow, and with momentum the first difference of the whole state.
        form: "iterated_map" (K gradients an evaluation) or "hessian" (K = 2: one gradient and one HVP).

    Raises:
        FlowError: an order or optimiser for which this form is not built.
    """
    if form not in ("iterated_map", "hessian"):
        raise FlowError(f"form must be 'iterated_map' or 'hessian'; {form!r} was given")
    if order < 1:
        raise FlowError(f"order must be at least 1; {order} was given")
    if order == 1 and not optimizer.momentum:
        return GradientFlow(problem, optimizer)
    if form == "hessian":
        if order != 2:
            raise FlowError(
                f"the Hessian form is built for order 2, not {order}; the iterated-map form has every order"
            )
        return HessianForm(problem, optimizer)
    return IteratedMapForm(problem, optimizer, order)
