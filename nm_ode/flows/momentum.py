"""Closed-form flows of SGD with momentum: second order in time, and its slow manifold.

Both are in time t = ak with a = η(1−τ), and take the gradient and Hessian of L + (λ/2)‖θ‖². The iterated-map form
follows the same optimiser closer at every order; these are what the literature compares with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nm_ode.flows.base import (
    Cost,
    Descent,
    Flow,
    as_order,
    regularised_gradient,
    regularised_hvp,
    require_descent,
)
from nm_ode.loss import Problem


@dataclass(frozen=True)
class SecondOrderFlow(Flow):
    """(a(1+β)/2)θ̈ + (1−β)θ̇ + λθ = −g, θ̇(0) = 0 (Kunin et al. 2021, §5; docs/theory.md §4.3). State (θ, θ̇).

    The expansion of θ_{k+1} − θ_k = β(θ_k − θ_{k−1}) − a(g_k + λθ_k) in a. Nesterov takes the gradient ahead, at
    θ + β(θ_k − θ_{k−1}), which adds aβHθ̇ on the left: one Hessian product.

    A run under way starts with θ̇ = −v/(1−τ). From rest a step acts half a step before an oscillator with θ̇(0) = 0
    feels it: the flow lags by an amount of order η, whatever follows.

    Args:
        problem: the loss.
        optimizer: SGD with any of its options.

    Raises:
        FlowError: an optimiser other than SGD.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.01, momentum=0.5)
        >>> run = nm_ode.train(problem, sgd, steps=20)
        >>> solution = nm_ode.solve(nm_ode.SecondOrderFlow(problem, sgd), t=run)
        >>> round(float(nm_ode.compare(run, solution).relative_error[-1]), 3)
        0.018
    """

    problem: Problem
    optimizer: Descent
    name: ClassVar = "second_order"
    title: ClassVar = "second-order flow"
    expected_order: ClassVar = 2
    depends_on_lr: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_descent(self.optimizer, "second-order flow")

    @property
    def cost(self) -> Cost:
        return Cost(hvps=int(self.optimizer.nesterov))

    def state_from(self, theta: Tensor, memory: Tensor | None = None) -> Tensor:
        if memory is None or not self.optimizer.stateful:
            return torch.cat([theta, torch.zeros_like(theta)])
        _, velocity = self.optimizer.state_layout(len(theta)).split(memory)
        return torch.cat([theta, velocity / -(1 - self.optimizer.dampening)])

    def rhs(self, t: float, state: Tensor) -> Tensor:
        step, beta = self.optimizer.time_per_step, self.optimizer.momentum
        theta, rate = state.split(self.problem.layout.size)
        force = regularised_gradient(self.problem, self.optimizer, theta).add_(rate, alpha=1 - beta)
        if self.optimizer.nesterov:
            force.add_(regularised_hvp(self.problem, self.optimizer, theta, rate), alpha=step * beta)
        return torch.cat([rate, force.div_(-step * (1 + beta) / 2)])


@dataclass(frozen=True)
class SlowManifoldFlow(Flow):
    """θ̇ = −sg − ac s³Hg with s = 1/(1−β): where momentum leads after its transient (docs/theory.md §4.4).

    c = (1+β)/2 for heavy ball and (1−β+2β²)/2 for Nesterov: the x² term of log z, z the slow root of
    z² − (1+β−x)z + β = 0 (Nesterov: z² − (1+β)(1−x)z + β(1−x) = 0), x = aλ. Order 1 leaves the Hessian term out:
    gradient flow, sped up by momentum.

    From rest a run has a transient, some 1/(1−β) steps long, of which this flow knows nothing: it leaves an error of
    order η.

    Args:
        problem: the loss.
        optimizer: SGD with any of its options.
        order: 1 or 2.

    Raises:
        FlowError: another order than 1 or 2, or an optimiser other than SGD.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.01, momentum=0.5)
        >>> warm = nm_ode.final_state(nm_ode.train(problem, sgd, steps=20))
        >>> run = nm_ode.train(problem, sgd, steps=20, state0=warm)
        >>> flows = [nm_ode.SlowManifoldFlow(problem, sgd, order) for order in (1, 2)]
        >>> [f"{float(nm_ode.compare(run, nm_ode.solve(flow, run)).relative_error[-1]):.0e}" for flow in flows]
        ['4e-02', '5e-03']
    """

    problem: Problem
    optimizer: Descent
    order: int = 2
    depends_on_lr: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_descent(self.optimizer, "slow-manifold flow")
        object.__setattr__(self, "order", as_order(self.order, "the slow-manifold flow", (1, 2)))

    @property
    def name(self) -> str:
        return f"slow_manifold_{self.order}"

    @property
    def title(self) -> str:
        return f"slow-manifold flow, order {self.order}"

    @property
    def expected_order(self) -> int:
        return self.order

    @property
    def cost(self) -> Cost:
        return Cost(hvps=self.order - 1)

    def rhs(self, t: float, state: Tensor) -> Tensor:
        beta = self.optimizer.momentum
        speed = 1 / (1 - beta)
        g = regularised_gradient(self.problem, self.optimizer, state)
        field = g.mul(-speed)
        if self.order == 2:
            share = (1 - beta + 2 * beta**2) / 2 if self.optimizer.nesterov else (1 + beta) / 2
            h_g = regularised_hvp(self.problem, self.optimizer, state, g)
            field.add_(h_g, alpha=-self.optimizer.time_per_step * share * speed**3)
        return field
