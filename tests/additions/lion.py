"""An optimiser of one file: Lion (Chen et al. 2023, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nm_ode.optimizers import Optimizer, StateLayout
from nm_ode.optimizers.ranges import Fraction, NotNegative, Positive, require_in_range


@dataclass(frozen=True)
class Lion(Optimizer):
    """θ' = θ − η(sign(β1 m + (1−β1)g) + λθ); m' = β2 m + (1−β2)g; the state is (θ, m), m = 0 at the start."""

    lr: Positive
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    weight_decay: NotNegative = 0.0

    def __post_init__(self) -> None:
        require_in_range(self)

    def state_layout(self, n_theta: int) -> StateLayout:
        return StateLayout((("theta", n_theta), ("momentum", n_theta)))

    def init(self, theta: Tensor, grad: Tensor) -> Tensor:
        return torch.cat([theta, torch.zeros_like(theta)])

    def increment(self, state: Tensor, grad: Tensor) -> Tensor:
        theta, momentum = self.state_layout(len(grad)).split(state)
        beta1, beta2 = self.betas
        direction = torch.sign(beta1 * momentum + (1 - beta1) * grad) + self.weight_decay * theta
        return torch.cat([-self.lr * direction, (1 - beta2) * (grad - momentum)])
