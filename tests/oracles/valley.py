"""A loss of two numbers on which an optimiser at the edge of stability has an orbit in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nm_ode import Problem


class Valley(nn.Module):
    """L = (1 + y)x²/2 − by + cy²/2: it sharpens along y, and descent oscillates along x once 1 + y = 2/η."""

    def __init__(self, b: float, c: float, x: float, y: float) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([x, y], dtype=torch.float64))
        self.b, self.c = b, c

    def forward(self, _: Tensor) -> Tensor:
        x, y = self.place
        return (1 + y) * x**2 / 2 - self.b * y + self.c * y**2 / 2


def valley(b: float, c: float, x: float, y: float) -> Problem:
    return Problem.from_objective(
        Valley(b, c, x, y), lambda model, batch: model(batch), torch.zeros(1, 1, dtype=torch.float64)
    )
