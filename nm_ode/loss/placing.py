"""Copies of a model and of what the loss holds, on the device and in the dtype of a problem."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nm_ode.arguments import outside_inference
from nm_ode.data.leaves import in_dtype
from nm_ode.loss.guards import ProblemError

Function = TypeVar("Function", bound=Callable[..., Any])
M = TypeVar("M", bound=nn.Module)


def copied(model: M, device: torch.device, dtype: torch.dtype) -> M:
    """A copy with floating-point parameters and buffers in `dtype` and complex buffers in its pair.

    Raises:
        ProblemError: it cannot be copied.
    """
    made = deep_copied(model)

    def convert(tensor: Tensor) -> Tensor:
        return in_dtype(tensor, device, dtype) if tensor.layout is torch.strided else tensor.to(device)

    made._apply(convert)  # type: ignore[no-untyped-call]
    return made


def deep_copied(model: M, *, parameters: bool = True) -> M:
    """A deep copy; of a computed tensor that a module keeps as an attribute, its values.

    The old `torch.nn.utils.weight_norm` keeps one, and computes it anew before each forward pass.

    Args:
        parameters: False: the copy has the model's own.

    Raises:
        ProblemError: it cannot be copied.
    """
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    shared = {} if parameters else {id(parameter): parameter for parameter in model.parameters()}
    try:
        return copy.deepcopy(model, computed | shared)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise ProblemError(
            f"the model cannot be copied ({error}): a module keeps an attribute that copy.deepcopy cannot take"
        ) from error


def placed(function: Function, model: nn.Module | None, device: torch.device, dtype: torch.dtype) -> Function:
    """A loss or objective whose tensors are on the device, floating-point ones in `dtype`.

    A module (class weights, say) is copied and converted, as is one whose method it is, and what `functools.partial`
    holds. Any other function is left as it is.

    Args:
        model: whose parameters a loss may hold; None if it is not looked at.

    Raises:
        ProblemError: a module with trainable parameters that are not the model's.
    """
    made: Any = function
    if isinstance(function, nn.Module):
        if model is not None:
            require_no_parameters_of_its_own(function, model)
        made = copied(function, device, dtype)
    elif isinstance(function, functools.partial):
        inner = placed(function.func, model, device, dtype)
        args = [_placed_value(value, model, device, dtype) for value in function.args]
        keywords = {
            name: _placed_value(value, model, device, dtype) for name, value in function.keywords.items()
        }
        made = functools.partial(inner, *args, **keywords)
    elif isinstance(function, types.MethodType) and isinstance(function.__self__, nn.Module):
        made = types.MethodType(function.__func__, placed(function.__self__, model, device, dtype))
    return made  # type: ignore[no-any-return]


def _placed_value(value: Any, model: nn.Module | None, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(value, nn.Module | functools.partial):
        return placed(value, model, device, dtype)
    if isinstance(value, Tensor) and value.layout is torch.strided:
        return outside_inference(in_dtype(value, device, dtype))
    return value


def require_no_parameters_of_its_own(loss: nn.Module, model: nn.Module) -> None:
    """Raises ProblemError for a module with trainable parameters that are not the model's."""
    theirs = {id(parameter) for parameter in model.parameters()}
    for name, parameter in loss.named_parameters():
        if parameter.requires_grad and id(parameter) not in theirs:
            raise ProblemError(
                f"the loss {type(loss).__name__} has a trainable parameter {name!r}, which is not the model's: to "
                "train it too, give nm_ode.WithLoss(model, loss) as the model, nm_ode.own_loss as the loss and (x, y) "
                "as the batch; to hold it constant, call loss.requires_grad_(False)"
            )
