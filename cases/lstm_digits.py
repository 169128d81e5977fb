"""An LSTM for lstm_digits.toml, which reads a digit row by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RowByRow(nn.Module):
    """Images of 8×8 pixels, flat, as eight steps of eight; the last hidden state gives the logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.out = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(x.unflatten(1, (8, 8)))
        return self.out(hidden[-1])


def build(width: int, seed: int) -> nn.Module:
    """The network; `seed` is the case's."""
    torch.manual_seed(seed)
    return RowByRow(width)
