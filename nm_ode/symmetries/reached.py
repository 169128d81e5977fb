"""What of a graph matters to the loss: tensors that are zero whatever the parameters, operations that nothing reads.

A recurrent network of which only the last step is read runs its backward direction to the end, and reads of it the
first step alone, whose recurrent weight meets a state of zeros. The rules need not look at the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
_ODD = {"abs", "dropout", "erf", "gelu", "mean", "neg", "relu", "sin", "silu", "sum", "tanh", "view_as_real"}
"""Functions of one tensor that are zero where it is."""


@dataclass(frozen=True, eq=False)
class Reached:
    """Attributes:
    zeros: operations that give tensors of zeros, and constants that are such tensors.
    read: operations of which the loss reads something that is not zero by itself, in order.
    partly: of those that are read in part, which entries.
    zero_at: of those that are zero in part, which entries.
    """

    zeros: frozenset[Node]
    read: tuple[Node, ...]
    partly: Mapping[Node, Tensor]
    zero_at: Mapping[Node, Tensor]


def reached(graph: Graph) -> Reached:
    """What the rules need look at."""
    zeros = _zeros(graph)
    needed: dict[Node, Any] = {graph.loss: None}
    for node in reversed(graph.operations):
        if node not in needed or node in zeros:
            continue
        if _carries(graph, node):
            _of_move(graph, node, needed)
        elif operation(node) == "complex" and all(operation(user) == "_fft_c2r" for user in node.users):
            _of_transform_back(node, needed)
        else:
            for source in node.all_input_nodes:
                needed[source] = None
    read = tuple(node for node in graph.operations if node in needed)
    partly = {node: mask for node, mask in needed.items() if isinstance(mask, Tensor)}
    return Reached(zeros, read, partly, _zero_at(graph, read))


def _carries(graph: Graph, node: Node) -> bool:
    """Is each entry of the result one of a source's, or a zero, in the same way for all batches?"""
    if _pads_zeros(node):
        if node not in graph.sized:
            return True
        # By how many zeros after what is there is the batch's: it stays where it is.
        pads: Any = node.args[1]
        before = node.meta["with_sizes"][1][::2]
        return all(isinstance(n, int) for n in before) and all(n >= 0 for n in pads[1::2])
    return is_move(node) and not open_dims(graph, node)


def _pads_zeros(node: Node) -> bool:
    constant = operation(node) == "constant_pad_nd" or (
        operation(node) == "pad" and argument(node, "mode", "constant") == "constant"
    )
    return constant and not argument(node, "value")


def _of_transform_back(node: Node, needed: dict[Node, Any]) -> None:
    """Of the constant's coefficient a Fourier transform to real numbers reads the real part alone."""
    real, imaginary = node.args[:2]
    needed[real] = None  # type: ignore[index]
    _add(needed, imaginary, torch.stack([~_constants(user, node) for user in node.users]).any(0))


def _constants(transform: Node, of: Node) -> Tensor:
    """Where the coefficient of the constant is, in a tensor of a transform's coefficients."""
    shape = tuple(value(of).shape)
    places = torch.zeros(shape, dtype=torch.bool)
    given: Any = transform.args[1]
    dims = [dim % len(shape) for dim in given]
    places[tuple(0 if dim in dims else slice(None) for dim in range(len(shape)))] = True
    return places


def _zero_at(graph: Graph, read: Iterable[Node]) -> dict[Node, Tensor]:
    """The coefficient of the constant of real numbers is real."""
    found: dict[Node, Any] = {}
    for node in read:
        name, source = operation(node), node.args[0] if node.args else None
        if name == "view_as_real" and isinstance(source, Node) and operation(source) == "_fft_r2c":
            if value(source).numel() <= _MOST:
                imaginary = torch.tensor([False, True])
                found[node] = _constants(source, source)[..., None] & imaginary
        elif is_move(node) and not open_dims(graph, node) and any(n in found for n in node.all_input_nodes):

            def mask(n: Any) -> Any:
                index = place_of_index(graph, n)
                nothing = torch.zeros((), dtype=torch.bool)
                return found.get(n, nothing.expand(_shape(n))) if index is None else index

            found[node] = move(node, mask)
    return {node: mask for node, mask in found.items() if isinstance(mask, Tensor) and bool(mask.any())}


def _shape(node: Node) -> tuple[int, ...]:
    found = value(node)
    return tuple(found.shape) if isinstance(found, Tensor) else ()


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
            _add(needed, source, mask)


def _add(needed: dict[Node, Any], source: Any, mask: Tensor) -> None:
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

    if _pads_zeros(node):
        went: Any = torch.constant_pad_nd(numbers + 1, node.args[1]) - 1  # type: ignore[arg-type]
    else:
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
