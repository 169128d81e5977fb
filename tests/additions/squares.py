"""A network of one file: linear in the inputs and their squares."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nm_ode.models.options import Count
from nm_ode.models.seeding import seeded


class Squares(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, outputs)
        self.second = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.first(x) + self.second(x.square())
        return result


def squares(inputs: Count, outputs: Count, *, seed: int = 0) -> Squares:
    """Wx + Vx² + b, in float64."""
    with seeded(seed):
        return Squares(inputs, outputs).to(torch.float64)
