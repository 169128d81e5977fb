"""The losses of a model's output and the targets that a case can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from nm_ode.loss import LossFunction
from nm_ode.registry import Registry


@dataclass(frozen=True)
class Loss:
    """A loss function, and the targets that it is for: int64 classes (n,), or values (n, outputs)."""

    function: LossFunction
    targets: Literal["classes", "values"]


LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "cross_entropy": Loss(nn.functional.cross_entropy, "classes"),
        "mse": Loss(nn.functional.mse_loss, "values"),
    },
)
"""Name in a case file → loss."""
