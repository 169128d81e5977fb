"""Reading a node of the graph: which operation it is, its arguments, what it gives; and tables of rules by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import Node

R = TypeVar("R")


def operation(node: Node) -> str:
    """The bare name of the operation: 'linear' for aten.linear.default."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.rpartition("::")[2]
    return getattr(target, "__name__", str(target))


def argument(node: Node, name: str, default: Any = None) -> Any:
    """An argument of an operation by its schema's name, whether given by place, by name or not at all.

    "self" is the first, however the schema calls it.
    """
    if name in node.kwargs:
        return node.kwargs[name]
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    for i, declared in enumerate(target._schema.arguments):
        if declared.name == name:
            if i < len(node.args):
                return node.args[i]
            return declared.default_value if declared.has_default_value() else default
    return node.args[0] if name == "self" and node.args else default


def ndim_of(node: Node) -> int:
    """Number of dimensions of the first argument."""
    first = node.args[0]
    found = value(first) if isinstance(first, Node) else None
    return found.ndim if isinstance(found, Tensor) else 0


def dims_of(node: Node) -> tuple[int, ...]:
    """The dimensions that a reduction puts together, not negative: its argument `dim`, a number or several, or all."""
    ndim, dims = ndim_of(node), argument(node, "dim")
    if dims is None or dims == []:
        return tuple(range(ndim))
    return tuple(sorted({dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)})) if ndim else ()


def value(node: Any) -> Any:
    """Shape, dtype and strides of a node's result: a fake tensor, or a tuple of them."""
    return node.meta["val"]


def registering(rules: dict[str, R]) -> Callable[..., Callable[[R], R]]:
    """A decorator `@rule("relu", "neg", …)` that enters a function in `rules` under the operations' names."""

    def rule(*names: str) -> Callable[[R], R]:
        def enter(function: R) -> R:
            rules.update(dict.fromkeys(names, function))
            return function

        return enter

    return rule
