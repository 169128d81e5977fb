"""Update maps Φ as pure functions of (theta, velocity), equal to torch.optim step for step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SGD:
    """`torch.optim.SGD` as a map.

    d_k = g_k + λθ_k; v_1 = d_0, v_{k+1} = βv_k + (1−τ)d_k; θ_{k+1} = θ_k − ηv_{k+1}, and with Nesterov
    θ_{k+1} = θ_k − η(d_k + βv_{k+1}). Without momentum there is no velocity, and dampening does nothing.

    Args:
        lr: learning rate η > 0.
        momentum: β in [0, 1).
        dampening: τ in [0, 1).
        weight_decay: λ ≥ 0.
        nesterov: needs momentum > 0 and dampening = 0, as in torch.

    Raises:
        ValueError: a value outside its range, in one sentence.
    """

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be a positive number; {self.lr} was given")
        for name in ("momentum", "dampening"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1); {value} was given")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be 0 or positive; {self.weight_decay} was given")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                "nesterov needs momentum > 0 and dampening = 0; "
                f"momentum = {self.momentum} and dampening = {self.dampening} were given"
            )

    @property
    def time_per_step(self) -> float:
        """Flow time of one step: η, or η(1−τ) with momentum (THEORY.md §1)."""
        return self.lr * (1 - self.dampening) if self.momentum else self.lr

    def update(self, theta: Tensor, velocity: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """(θ_{k+1}, v_{k+1}) from θ_k, v_k and g_k = ∇L(θ_k); nothing is written to.

        `velocity` is None before the first step, and stays None without momentum.
        """
        direction = grad + self.weight_decay * theta if self.weight_decay else grad
        if not self.momentum:
            return theta - self.lr * direction, None
        if velocity is None:
            velocity = direction
        else:
            velocity = self.momentum * velocity + (1 - self.dampening) * direction
        ahead = direction + self.momentum * velocity if self.nesterov else velocity
        return theta - self.lr * ahead, velocity

    def velocity_at_rest(self, theta: Tensor, grad: Tensor) -> Tensor | None:
        """v_0 from which the first step is like any other; None without momentum.

        torch does not dampen its first step, v_1 = d_0. With v_0 = (τ/β) d_0 that is βv_0 + (1−τ)d_0.
        """
        if not self.momentum:
            return None
        direction = grad + self.weight_decay * theta if self.weight_decay else grad
        return direction * (self.dampening / self.momentum)

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The same optimiser as torch's own object."""
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )
