"""Modified flow of any optimiser to any order, from its own update (docs/theory.md §4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Any, ClassVar

import torch
from torch import Tensor

from nm_ode.arguments import as_count, said
from nm_ode.flows.base import Cost, Flow, FlowError, StateLayout, UpdateMap, require_update_map
from nm_ode.loss import Problem

HIGHEST_ORDER = 40
"""Here rounding is 6e-6 of the field (`rounding`), and doubles with each order more."""


def as_map_order(given: Any) -> int:
    """K.

    Raises:
        FlowError: no whole number, or one from which on rounding is all that is left.
    """
    order = as_count(given, "order", error=FlowError)
    if order > HIGHEST_ORDER:
        raise FlowError(
            f"order must be at most {HIGHEST_ORDER}, beyond which rounding is all that is left of the field; "
            f"{said(order)} was given"
        )
    return order


@dataclass(frozen=True)
class IteratedMapFlow(Flow):
    """f_K(z) = (1/h) Σ_{j=1}^{K} (−1)^{j+1}/j Δ^j z, from the K iterates z, Φ(z), …, Φ^K(z).

    The series of (1/h) log E in the forward difference Δ = E − 1. K gradients an evaluation, no Hessian. The state z
    is the optimiser's whole state, theta first. A velocity's own relaxation, Δ of size 1 − β, is followed to
    (1−β)^K, and all else to (η λ_max)^K.

    **Where K stops paying.** The differences are taken of the increments Φ(z) − z, which the optimiser gives without
    cancellation, so what rounding leaves is eps · Σ|c_i| of the field (`rounding`), not eps · |z|/h: 1e-15 at K = 4,
    9e-15 at K = 8, 9e-14 at K = 12, 1e-12 at K = 16. A truncation of x^K has come down to it at K = 13 for x = 0.1
    (η λ_max, or 1 − β of a velocity's transient), at K = 8 for 0.01; in float32 at K = 6 and K = 4. Beyond, a higher
    order costs gradients and buys nothing.
    """

    problem: Problem
    optimizer: UpdateMap
    order: int
    depends_on_lr: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_update_map(self.optimizer)
        object.__setattr__(self, "order", as_map_order(self.order))

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
    def map_order(self) -> int:
        """K."""
        return self.order

    @property
    def amplification(self) -> float:
        """Σ|c_i|."""
        return sum(map(abs, increment_weights(self.order)))

    @property
    def cost(self) -> Cost:
        return Cost(gradients=self.order)

    @property
    def layout(self) -> StateLayout:
        """Of the state."""
        return self.optimizer.state_layout(self.problem.layout.size)

    def state_from(self, theta: Tensor, memory: Tensor | None = None) -> Tensor:
        if memory is not None:
            self.layout.split(memory)  # of this optimiser, or a ValueError
            return memory
        if not self.optimizer.stateful:
            return theta
        return self.optimizer.init(theta, self.problem.grad(theta))

    def scale(self, state: Tensor) -> Tensor | None:
        if not self.optimizer.multiscale:
            return None
        return self.optimizer.scale(state, self.problem.grad(self.theta_in(state)))

    def non_finite_remedy(self, *, warm_start: bool) -> str | None:
        if not self.optimizer.multiscale:
            return None
        if warm_start:
            return "a step of the solver took a second moment below zero: tighten rtol"
        return (
            "differences do not follow the optimiser's first steps, and take its second moment below zero: start warm "
            "(state0 of train, warm_steps of a case)"
        )

    def rhs(self, t: float, state: Tensor, out: Tensor | None = None) -> Tensor:
        field = torch.zeros_like(state) if out is None else out.zero_()
        for i, weight in enumerate(increment_weights(self.order)):
            gained = self.optimizer.increment(state, self.problem.grad(self.theta_in(state)))
            field.add_(gained, alpha=weight / self.optimizer.time_per_step)
            if i < self.order - 1:
                state = state + gained
            del gained  # before the next gradient, which takes as much
        return field


def increment_weights(order: int) -> list[float]:
    """c_i with Σ_{j≤K} (−1)^{j+1}/j Δ^j z_0 = Σ_{i<K} c_i (z_{i+1} − z_i); Σ c_i = 1.

    Δ^j z_0 = Δ^{j−1} u_0 = Σ_i (−1)^{j−1−i} C(j−1, i) u_i, so c_i = (−1)^i Σ_{j>i} C(j−1, i)/j.
    """
    return [(-1) ** i * sum(comb(j - 1, i) / j for j in range(i + 1, order + 1)) for i in range(order)]


def rounding(order: int, dtype: torch.dtype = torch.float64) -> float:
    """eps · Σ|c_i|: rounding of f_K relative to the field, beyond which a higher order buys nothing."""
    return torch.finfo(dtype).eps * sum(map(abs, increment_weights(order)))
