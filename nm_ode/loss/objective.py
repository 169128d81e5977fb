"""What is minimised: a scalar of a model and a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nm_ode.data.sources import Source, source_of
from nm_ode.data.trees import flatten
from nm_ode.loss.guards import ProblemError

Objective: TypeAlias = Callable[[Any, Any], Tensor]
"""`objective(model, batch) -> scalar`; the batch is any tree of tensors (`nm_ode.data.trees`)."""

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]
"""`loss_fn(model(x), y) -> scalar`."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Supervised(nn.Module):
    """The objective of a batch (x, y): loss_fn(model(x), y). A module, for the tensors that the loss may hold."""

    def __init__(self, loss_fn: LossFunction) -> None:
        super().__init__()
        self.loss_fn = loss_fn

    def forward(self, model: Any, batch: Any) -> Tensor:
        """The loss, a scalar."""
        x, y = batch
        return self.loss_fn(model(x), y)


def on_device(function: Function, device: torch.device) -> Function:
    """A copy on the device of a loss that is a module (class weights, say); a plain function as it is."""
    return copy.deepcopy(function).to(device) if isinstance(function, nn.Module) else function


def supervised_source(data: Any) -> Source:
    """A source of pairs (x, y), in which a list of numbers is a tensor.

    Raises:
        ProblemError: not as many inputs as targets, or none.
    """
    if not isinstance(data, tuple | list):
        return source_of(data)
    parts = tuple(part if _has_arrays(part) else torch.as_tensor(part) for part in data)
    if len(parts) != 2:
        raise ProblemError(
            f"data: {len(parts)} parts; the short form takes (x, y), and Problem.from_objective any structure"
        )
    x, y = parts
    if _is_array(x) and _is_array(y) and (len(x) != len(y) or len(x) == 0):
        raise ProblemError(f"data: {len(x)} inputs and {len(y)} targets; give as many of each, at least one")
    return source_of(parts)


def _has_arrays(part: Any) -> bool:
    return any(map(_is_array, flatten(part)[0]))


def _is_array(part: Any) -> bool:
    return isinstance(part, Tensor | np.ndarray)
