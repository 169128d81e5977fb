"""Linear and logistic regression."""

from __future__ import annotations

from torch import nn

from nm_ode.models.mlp import mlp
from nm_ode.models.options import Count


def linear(inputs: Count, outputs: Count, *, bias: bool = True, seed: int = 0) -> nn.Sequential:
    """One linear layer, `linear1`, in float64.

    Raises:
        ArgumentError: fewer than one input or output.
    """
    return mlp((inputs, outputs), bias=bias, seed=seed)
