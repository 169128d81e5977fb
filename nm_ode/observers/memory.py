"""What an observer remembers from one observation to the next, as JSON and arrays: so a checkpoint keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.errors import ArgumentError

_NUMBERS = "biufc"


_DECLARED = ("dim", "variables", "update_variables")


def plain_attributes(owner: Any) -> dict[str, Any]:
    """The attributes of an observer that can be kept; what nm_ode itself hands out is made anew with each run.

    Raises:
        ArgumentError: an attribute that may change and that no checkpoint can keep.
    """
    anew, found = made_anew(owner), {}
    for name, value in vars(owner).items():
        if name in anew or name in _DECLARED:
            continue
        try:
            packed(value)
        except TypeError:
            raise unkept(owner, name, value) from None
        found[name] = value
    return found


def made_anew(owner: Any) -> dict[str, Any]:
    """The attributes that are not kept: the next run's observer is given them, as this one was."""
    return {
        name: value for name, value in vars(owner).items() if name not in _DECLARED and _is_made_anew(value)
    }


def unkept(owner: Any, name: str, value: Any) -> ArgumentError:
    """The error for an attribute that no checkpoint can keep."""
    who, kind = type(owner).__name__, type(value).__name__
    return ArgumentError(
        f"{who} holds a {kind} in {name!r}, which no checkpoint can keep: give {who} `memory` and `restore`"
    )


def set_attributes(owner: Any, kept: Mapping[str, Any]) -> None:
    """Give an object the attributes that it had; lists and dicts that others may hold are filled, not replaced."""
    for name, value in kept.items():
        now = vars(owner).get(name)
        if isinstance(now, list) and isinstance(value, list):
            now[:] = value
        elif isinstance(now, dict) and isinstance(value, dict):
            now.clear()
            now.update(value)
        else:
            object.__setattr__(owner, name, value)  # also where it is a frozen dataclass


def packed(value: Any) -> tuple[Any, list[np.ndarray]]:
    """A tree of numbers, texts, tensors and arrays as JSON, and the arrays in the order in which it names them.

    Raises:
        TypeError: something else is in it.
    """
    arrays: list[np.ndarray] = []

    def pack(part: Any) -> Any:
        if part is None or isinstance(part, bool | int | str):
            return part
        if type(part) is float:
            return part if math.isfinite(part) else {"number": repr(part)}
        if isinstance(part, Tensor):
            arrays.append(part.detach().cpu().numpy().copy())
            return {"tensor": str(part.device)}
        if isinstance(part, np.ndarray | np.generic) and part.dtype.kind in _NUMBERS:
            arrays.append(np.array(part))
            return {"array": "scalar" if isinstance(part, np.generic) else "array"}
        if isinstance(part, range):
            return {"range": [part.start, part.stop, part.step]}
        if isinstance(part, list | tuple) and type(part) in (list, tuple):
            return {type(part).__name__: [pack(one) for one in part]}
        if type(part) is dict and all(isinstance(key, str) for key in part):
            return {"dict": {key: pack(one) for key, one in part.items()}}
        raise TypeError(type(part).__name__)

    return pack(value), arrays


def unpacked(tree: Any, arrays: list[np.ndarray]) -> Any:
    """What `packed` took apart."""
    waiting = iter(arrays)

    def unpack(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        ((kind, content),) = part.items()
        if kind == "number":
            return float(content)
        if kind == "tensor":
            return torch.from_numpy(next(waiting)).to(content)
        if kind == "array":
            array = next(waiting)
            return array[()] if content == "scalar" else array
        if kind == "dict":
            return {key: unpack(one) for key, one in content.items()}
        if kind == "range":
            return range(*content)
        return (tuple if kind == "tuple" else list)(unpack(one) for one in content)

    return unpack(tree)


def in_part(start: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose name begins so, under the rest of their names."""
    return {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}


def as_arrays(start: str, **values: np.ndarray | None) -> dict[str, np.ndarray]:
    """The arrays that there are, under names that begin so."""
    return {start + name: np.asarray(value) for name, value in values.items() if value is not None}


def _is_made_anew(value: Any) -> bool:
    if isinstance(value, type | ModuleType | BuiltinFunctionType | torch.dtype | torch.device):
        return True
    if type(value) is tuple:
        return bool(value) and all(map(_is_made_anew, value))
    if isinstance(value, FunctionType):
        return not value.__closure__
    return type(value).__module__.split(".")[0] == "nm_ode" and not _is_observer(value)


def _is_observer(value: Any) -> bool:
    return hasattr(value, "observe") and hasattr(value, "begin")
