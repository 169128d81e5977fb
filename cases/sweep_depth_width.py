"""A network of one's own for sweep_depth_width.toml: residual tanh blocks of any depth and width, on digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """x + tanh(W x + b)/√depth, so that deeper networks start no larger."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.scale = depth**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.tanh(self.inner(x))


def build(depth: int, width: int, seed: int) -> nn.Module:
    """The network; `seed` is the case's."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, width), *(Residual(width, depth) for _ in range(depth)), nn.Linear(width, 10)
    )
