"""Tensors that are zero: they have any factor, and are coordinates of anything."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.operations import argument, operation, value

_ZEROS = {"zeros", "zeros_like", "new_zeros", "zero"}
_FULL = {
    "full": "fill_value",
    "full_like": "fill_value",
    "new_full": "fill_value",
    "scalar_tensor": "s",
    "fill": "value",
}


def is_zero(node: Node) -> bool:
    """Does the operation make zeros?"""
    result = value(node)
    if not isinstance(result, Tensor) or not result.is_floating_point():
        return False
    name = operation(node)
    if name in _FULL:
        filler = argument(node, _FULL[name])
        return isinstance(filler, float | int) and filler == 0
    return name in _ZEROS


def zero_constants(graph: Graph) -> Iterator[Node]:
    """Constants of the model's own code that are zero, as `torch.tensor(0.0)`; a buffer may be another at any time."""
    places = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    for node, name in zip(places, graph.inputs, strict=True):
        if isinstance(name, str) and name.startswith("constant:"):
            constant = graph.values[name]
            if constant.is_floating_point() and not bool(constant.any()):
                yield node
