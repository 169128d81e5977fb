"""What the code of a model or a loss can reach: attributes, what functions close over, the globals that they name."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor, nn

_AT_MOST = 3000  # objects that are looked through
_DEEP = 4  # from a module: an attribute, a dict in it, an object in that …


def reachable(roots: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Modules, functions and other objects, each once, with the names that lead there."""
    waiting = deque[tuple[str, Any, int]](("", root, 0) for root in roots)
    seen: dict[int, Any] = {}  # the objects too, for an id is free again when its object is gone
    while waiting and len(seen) < _AT_MOST:
        place, thing, depth = waiting.popleft()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        yield place, thing
        if depth <= _DEEP or isinstance(thing, nn.Module):
            inside = 0 if isinstance(thing, nn.Module) else depth + 1
            waiting.extend((f"{place}.{name}".strip("."), part, inside) for name, part in _parts(thing))


def code_names(roots: Iterable[Any]) -> set[str]:
    """All names in the Python code that is no library's."""
    return {
        name
        for _, thing in reachable(roots)
        if isinstance(thing, types.FunctionType) and not _of_a_library(thing.__module__)
        for name in names(thing.__code__)
    }


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(
        thing, Tensor | np.ndarray | str | bytes | int | float | complex | types.ModuleType | type(None)
    ):
        return
    if isinstance(thing, Mapping):
        yield from ((str(key), value) for key, value in islice(thing.items(), 100))
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((str(i), value) for i, value in enumerate(islice(thing, 100)))
    elif isinstance(thing, functools.partial):
        yield from (("func", thing.func), ("args", thing.args), ("keywords", thing.keywords))
    elif isinstance(thing, types.MethodType):
        yield from (("", thing.__self__), ("", thing.__func__))
    elif isinstance(thing, types.FunctionType):
        if _of_a_library(thing.__module__):
            return
        yield from zip(thing.__code__.co_freevars, map(_content, thing.__closure__ or ()), strict=False)
        named = (name for name in names(thing.__code__) if name in thing.__globals__)
        yield from ((name, thing.__globals__[name]) for name in named)
        yield from (("", value) for value in thing.__defaults__ or ())
    elif not isinstance(thing, type):
        yield from getattr(thing, "__dict__", {}).items()
        if isinstance(thing, nn.Module):
            yield from ((name, part) for name, part in thing._modules.items())
        for owner in type(thing).__mro__:
            if not _of_a_library(owner.__module__):
                yield from (
                    ("", part) for part in vars(owner).values() if isinstance(part, types.FunctionType)
                )


def names(code: types.CodeType) -> Iterator[str]:
    """Of globals and attributes that a function's code names, the functions inside it included."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from names(inner)


def _of_a_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in {"torch", "numpy", "builtins", "collections", "nm_ode"}


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty yet
        return None
