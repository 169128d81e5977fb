"""The losses of a model's output and the targets that a case can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from nm_ode.loss import LossFunction, own_loss
from nm_ode.registry import Registry


@dataclass(frozen=True)
class Loss:
    """A loss that a case can name.

    Args:
        function: (output, target) → scalar; or `own_loss`, of a model and a batch.
        targets: "classes" (int64, shape (n,)), "values" (shape (n, outputs)), or "own".

    Example:
        >>> import torch
        >>> from nm_ode.studies.losses import Loss
        >>> loss = Loss(torch.nn.functional.huber_loss, "values")
        >>> loss.function(torch.ones(4, 1), torch.zeros(4, 1))
        tensor(0.5000)
    """

    function: LossFunction
    targets: Literal["classes", "values", "own"]


def mse_one_hot(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error to 1 for a sample's class and 0 for the others; output (n, classes), target (n,)."""
    wanted = nn.functional.one_hot(target, output.shape[-1]).to(output.dtype)
    return nn.functional.mse_loss(output, wanted)


LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "cross_entropy": Loss(nn.functional.cross_entropy, "classes"),
        "mse": Loss(nn.functional.mse_loss, "values"),
        "mse_one_hot": Loss(mse_one_hot, "classes"),
        "own": Loss(own_loss, "own"),
    },
)
"""Name in a case file → loss.

Example:
    >>> from nm_ode.studies.losses import LOSSES
    >>> sorted(LOSSES)
    ['cross_entropy', 'mse', 'mse_one_hot', 'own']
    >>> LOSSES["mse"].targets
    'values'
"""
