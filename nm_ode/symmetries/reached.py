"""What of a graph matters to the loss: tensors that are zero whatever the parameters, operations that nothing reads.

A recurrent network of which only the last step is read runs its backward direction to the end, and reads of it the
first step alone, whose recurrent weight meets a state of zeros. The rules need not look at the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import is_move, move
from nm_ode.symmetries.lookups import open_dims, place_of_index
from nm_ode.symmetries.operations import argument, operation, value
from nm_ode.symmetries.operations.contractions import contraction_of

_MOST = 1 << 20
"""Entries of a tensor that are followed one by one; of a larger one all are taken for read."""

_DROPPING = frozenset(
    [
        "chunk",
        "diagonal",
        "index",
        "index_select",
        "narrow",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "unbind",
    ]
)
"""Moves after which not all entries may be there."""

_ZEROS = {"zeros", "zeros_like", "new_zeros", "zero"}
_FULL = {
    "full": "fill_value",
    "full_like": "fill_value",
    "new_full": "fill_value",
    "scalar_tensor": "s",
    "fill": "value",
}
_ODD = {"abs", "dropout", "erf", "gelu", "mean", "neg", "relu", "sin", "silu", "sum", "tanh"}
"""Functions of one tensor that are zero where it is."""


@dataclass(frozen=True, eq=False)
class Reached:
    """Attributes:
    zeros: operations that give tensors of zeros, and constants that are such tensors.
    read: operations of which the loss reads something that is not zero by itself, in order.
    """

    zeros: frozenset[Node]
    read: tuple[Node, ...]


def reached(graph: Graph) -> Reached:
    """What the rules need look at."""
    zeros = _zeros(graph)
    needed: dict[Node, Any] = {graph.loss: None}
    for node in reversed(graph.operations):
        if node not in needed or node in zeros:
            continue
        if is_move(node) and not open_dims(graph, node):
            _of_move(graph, node, needed)
        else:
            for source in node.all_input_nodes:
                needed[source] = None
    return Reached(zeros, tuple(node for node in graph.operations if node in needed))


def _of_move(graph: Graph, node: Node, needed: dict[Node, Any]) -> None:
    """Which entries of its sources a move reads: `needed` has a mask, of several results a list, or None for all.

    A result of which nothing is read is not in `needed`.
    """
    wanted = needed[node]
    if operation(node) == "getitem":
        parts, place = node.args
        assert isinstance(parts, Node)
        assert isinstance(place, int)
        if parts in needed and needed[parts] is None:
            return
        masks = needed.setdefault(parts, {})
        masks[place] = None if place in masks else wanted
        return
    sources = [n for n in node.all_input_nodes if isinstance(value(n), Tensor)]
    whole = wanted is None and operation(node) not in _DROPPING
    if whole or any(value(n).numel() > _MOST for n in sources):
        for source in node.all_input_nodes:
            needed[source] = None
        return
    for source in node.all_input_nodes:
        mask = _read_of(graph, node, source, wanted) if _is_real(source) else None
        if mask is None:
            needed[source] = None
        elif bool(mask.any()):
            before = needed.get(source, False)
            if isinstance(before, Tensor):
                mask = mask | before
            needed[source] = None if before is None or bool(mask.all()) else mask


def _read_of(graph: Graph, node: Node, source: Node, wanted: Any) -> Tensor | None:
    """Mask of the entries of one source, by carrying out the move on their numbers."""
    shape = tuple(value(source).shape)
    numbers = torch.arange(value(source).numel()).reshape(shape)

    def read(n: Any) -> Any:
        if n is source:
            return numbers
        index = place_of_index(graph, n)
        return torch.full((), -1).expand(tuple(value(n).shape)) if index is None else index

    went = move(node, read)
    mask = torch.zeros(numbers.numel() + 1, dtype=torch.bool)  # the last is of what comes from elsewhere
    if isinstance(went, Tensor):
        mask[went if wanted is None else went[wanted]] = True
    else:
        for place, part in enumerate(went):
            if wanted is None or place in wanted:
                own = None if wanted is None else wanted[place]
                mask[part if own is None else part[own]] = True
    return mask[:-1].reshape(shape)


def _zeros(graph: Graph) -> frozenset[Node]:
    found = set(_zero_constants(graph))
    for node in graph.operations:
        if _makes_zeros(node) or (_is_real(node) and _is_zero_of(node, found)):
            found.add(node)
    return frozenset(found)


def _is_zero_of(node: Node, zeros: set[Node]) -> bool:
    """Is it zero because of what enters it?"""
    name, inputs = operation(node), node.all_input_nodes
    if not any(needed in zeros for needed in inputs):
        return False
    if is_move(node):
        return all(needed in zeros for needed in inputs if _is_real(needed))
    if name in _ODD or (name == "div" and argument(node, "rounding_mode") is None):
        return inputs[0] in zeros and node.args[0] is inputs[0]
    if name == "mul":
        return True
    if name in ("add", "sub"):
        return all(one in zeros for one in node.args[:2])
    form = contraction_of(node)
    if form is None:
        return False
    alone = form.added is None or form.added in zeros
    return alone and (form.a.node in zeros or form.b.node in zeros)


def _makes_zeros(node: Node) -> bool:
    """Does the operation make zeros?"""
    if not isinstance(value(node), Tensor) or not _is_real(node):
        return False
    name = operation(node)
    if name in _FULL:
        filler = argument(node, _FULL[name])
        return isinstance(filler, float | int) and filler == 0
    return name in _ZEROS


def _zero_constants(graph: Graph) -> Iterable[Node]:
    """Constants of the model's own code that are zero, as `torch.tensor(0.0)`; a buffer may be another at any time."""
    places = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    for node, name in zip(places, graph.inputs, strict=True):
        if isinstance(name, str) and name.startswith("constant:"):
            constant = graph.values[name]
            if constant.is_floating_point() and not bool(constant.any()):
                yield node


def _is_real(node: Node) -> bool:
    found = value(node)
    parts = found if isinstance(found, tuple | list) else (found,)
    return all(isinstance(part, Tensor) and (part.is_floating_point() or part.is_complex()) for part in parts)
