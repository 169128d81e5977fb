"""How a model is called with what a batch holds: one tensor, a tuple of inputs, a dict of named ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from nm_ode.loss.guards import ProblemError
from nm_ode.parameters import unwrapped

_NO_INPUTS = (bool, int, float, str)
"""Kinds of a parameter's default: what has one takes a setting, and no tensor."""


def call(model: Any, inputs: Any) -> Any:
    """`model(**inputs)` of a mapping and `model(*inputs)` of a tuple or list where its forward takes them so.

    Anything else, and where forward takes one argument, is given as it is: `model(inputs)`.

    Raises:
        ProblemError: a mapping or a tuple that forward takes in none of these ways.
    """
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        if _takes(model, 0, tuple(str(name) for name in inputs)):
            return model(**inputs)
    elif _are_several(inputs):
        if _takes(model, len(inputs), ()):
            return model(*inputs)
    else:
        return model(inputs)
    if not _takes(model, 1, ()):
        raise ProblemError(
            f"{takes_and_given(model, inputs)}: give as many, or a dict with these names, or Problem.from_objective "
            "with an objective that calls the model itself"
        )
    return model(inputs)


def takes_and_given(model: Any, inputs: Any) -> str:
    """What forward takes and what it is given, where that is not one tensor; else empty."""
    signature = _signature(model)
    if isinstance(inputs, Mapping):
        given = f"a dict of {', '.join(map(repr, inputs)) or 'nothing'}"
    elif _are_several(inputs):
        given = f"a {type(inputs).__name__} of {len(inputs)}"
    else:
        return ""
    listed = "" if signature is None else ", ".join(signature.parameters)
    return f"{type(unwrapped(model)).__name__}.forward takes ({listed}), and its inputs are {given}"


def _are_several(inputs: Any) -> bool:
    return type(inputs) in (tuple, list) and not all(isinstance(part, int | float) for part in inputs)


def _takes(model: Any, count: int, names: tuple[str, ...]) -> bool:
    """Does forward take so many arguments by place and these by name?"""
    signature = _signature(model)
    if signature is None:
        return count == 1
    try:
        bound = signature.bind(*range(count), **dict.fromkeys(names))
    except TypeError:
        return False
    # forward(self, batch, training=False) takes a tuple of two as one.
    return not any(
        isinstance(signature.parameters[name].default, _NO_INPUTS)
        for name in bound.arguments
        if name not in names
    )


def _signature(model: Any) -> inspect.Signature | None:
    """Of forward, `self` left out; None where there is none that could be read."""
    forward = unwrapped(model).forward if isinstance(model, nn.Module) else model
    function = getattr(forward, "__func__", None)
    try:
        if function is not None:
            return _of_method(function)
        return inspect.signature(forward)
    except (TypeError, ValueError):
        return None


@functools.lru_cache(maxsize=256)
def _of_method(function: Callable[..., Any]) -> inspect.Signature:
    whole = inspect.signature(function)
    return whole.replace(parameters=list(whole.parameters.values())[1:])
