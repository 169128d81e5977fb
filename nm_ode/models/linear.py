"""Linear and logistic regression."""

from __future__ import annotations

from torch import nn

from nm_ode.models.mlp import mlp
from nm_ode.models.options import Count


def linear(inputs: Count, outputs: Count, *, bias: bool = True, seed: int = 0) -> nn.Sequential:
    """One linear layer, `linear1`, in float64.

    Args:
        inputs, outputs: their numbers.
        bias: has it one?
        seed: of the initialisation; torch's global random state is left as it was.

    Raises:
        ArgumentError: fewer than one input or output.

    Example:
        >>> import torch
        >>> from nm_ode.models import linear
        >>> model = linear(10, 1)
        >>> model.linear1.weight.dtype, model(torch.ones(5, 10, dtype=torch.float64)).shape
        (torch.float64, torch.Size([5, 1]))
    """
    return mlp((inputs, outputs), bias=bias, seed=seed)
