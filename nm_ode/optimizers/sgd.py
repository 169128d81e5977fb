"""Stochastic gradient descent with momentum, dampening, Nesterov's look-ahead and weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nm_ode.errors import ArgumentError
from nm_ode.optimizers.base import Optimizer, StabilityLimit, StateLayout, has, plus_times
from nm_ode.optimizers.ranges import Fraction, NotNegative, Positive, require_in_range


@dataclass(frozen=True)
class SGD(Optimizer):
    """`torch.optim.SGD` as a map (docs/theory.md §1, eq. (1.1)).

    d_k = g_k + λθ_k; v_1 = d_0, v_{k+1} = βv_k + (1−τ)d_k; θ_{k+1} = θ_k − ηv_{k+1}, and with Nesterov
    θ_{k+1} = θ_k − η(d_k + βv_{k+1}). The state is (θ, v); without momentum it is θ alone, and dampening does
    nothing.

    Args:
        lr: learning rate η > 0.
        momentum: β in [0, 1).
        dampening: τ in [0, 1).
        weight_decay: λ ≥ 0.
        nesterov: needs momentum > 0 and dampening = 0, as in torch.

    Raises:
        ArgumentError: a value outside its range, in one sentence.

    Example:
        >>> import nm_ode
        >>> sgd = nm_ode.SGD(lr=0.1, momentum=0.9, dampening=0.5)
        >>> sgd.time_per_step, sgd.stability.limit
        (0.05, 3.8)
        >>> sgd.state_layout(3).parts
        (('theta', 3), ('velocity', 3))
    """

    lr: Positive
    momentum: Fraction = 0.0
    dampening: Fraction = 0.0
    weight_decay: NotNegative = 0.0
    nesterov: bool = False

    is_descent: ClassVar[bool] = True
    by_rows: ClassVar[bool] = True
    torch_memory: ClassVar = {"velocity": "momentum_buffer"}

    def __post_init__(self) -> None:
        require_in_range(self)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ArgumentError(
                "nesterov needs momentum > 0 and dampening = 0; "
                f"momentum = {self.momentum} and dampening = {self.dampening} were given"
            )

    @property
    def time_per_step(self) -> float:
        """Flow time of one step: η, or η(1−τ) with momentum (docs/theory.md §1)."""
        return self.lr * (1 - self.dampening) if self.momentum else self.lr

    @property
    def stability(self) -> StabilityLimit:
        """2(1+β) of η(1−τ)·λ, with Nesterov 2(1+β)/(1+2β): where an eigenvalue of the update reaches −1."""
        beta = self.momentum
        limit = 2 * (1 + beta) / (1 + 2 * beta) if self.nesterov else 2 * (1 + beta)
        return StabilityLimit(self.time_per_step, limit, self.weight_decay, beta, self.nesterov)

    def state_layout(self, n_theta: int) -> StateLayout:
        """theta, and with momentum the velocity."""
        names = ("theta", "velocity") if has(self.momentum) else ("theta",)
        return StateLayout(tuple((name, n_theta) for name in names))

    def init(self, theta: Tensor, grad: Tensor) -> Tensor:
        """z_0 from which the first step is like any other.

        torch does not dampen its first step, v_1 = d_0. With v_0 = (τ/β) d_0 that is βv_0 + (1−τ)d_0.
        """
        if not has(self.momentum):
            return theta
        return torch.cat([theta, self._direction(theta, grad) * (self.dampening / self.momentum)], dim=-1)

    def increment(self, state: Tensor, grad: Tensor) -> Tensor:
        """Φ(z) − z; nothing is written to."""
        theta, *memory = self.state_layout(grad.shape[-1]).split(state)
        direction = self._direction(theta, grad)
        if not memory:
            return direction * -self.lr
        (velocity,) = memory
        gained = (1 - self.dampening) * direction - (1 - self.momentum) * velocity
        after = velocity + gained
        ahead = direction + self.momentum * after if self.nesterov else after
        return torch.cat([ahead.mul_(-self.lr), gained], dim=-1)

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The same optimiser as torch's own object."""
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            foreach=False,  # torch's default on a GPU adds Nesterov's momentum to the gradient itself
        )

    def _direction(self, theta: Tensor, grad: Tensor) -> Tensor:
        return plus_times(grad, self.weight_decay, theta) if has(self.weight_decay) else grad
