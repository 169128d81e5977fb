"""Operations that read entries at places which the batch says: by an index made of data, or up to one of its sizes.

Such an operation ties every entry that it could reach: the example's own places say nothing of another batch's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import is_move
from nm_ode.symmetries.operations import argument, operation, value

_ALONG = {"select", "slice", "narrow", "index_select", "split", "split_with_sizes", "unfold"}
"""Operations that read along one dimension, their argument `dim`."""


def open_dims(graph: Graph, node: Node) -> tuple[int, ...]:
    """Dimensions of what a move reads along which the batch says what is read; none if the move is the same for all."""
    name = operation(node)
    if name == "index":
        return tuple(
            dim
            for dim, index in enumerate(node.args[1])  # type: ignore[arg-type]
            if isinstance(index, Node) and index not in graph.known
        )
    ndim = _ndim(node)
    if name == "index_select" and node.args[2] not in graph.known:
        return (argument(node, "dim") % ndim,)
    if node in graph.sized and name in _ALONG:
        return (argument(node, "dim", 0) % ndim,)
    unknown = [n for n in node.all_input_nodes[1:] if _is_integer(n) and n not in graph.known]
    if (node in graph.sized and name in ("roll", "diagonal")) or (name == "repeat_interleave" and unknown):
        return tuple(range(ndim))
    return ()


def place_of_index(graph: Graph, node: Any) -> Tensor | None:
    """Values of an index: of one that is known, zeros of its shape for one that the batch gives; None: no index."""
    if node in graph.known:
        return graph.known[node]
    if isinstance(node, Node) and _is_integer(node):
        return torch.zeros(tuple(value(node).shape), dtype=torch.int64)
    return None


_FILLED = {"full": "fill_value", "full_like": "fill_value", "new_full": "fill_value", "fill": "value"}


def met(graph: Graph, node: Any) -> tuple[int, int] | None:
    """The least and the largest number that an integer tensor can hold, whatever the batch; None: nothing is known.

    What is picked out of a known tensor is one of its numbers, wherever the batch says that it is picked.
    """
    if not isinstance(node, Node) or not _is_integer(node) or not value(node).numel():
        return None
    if node in graph.known:
        known = graph.known[node]
        return int(known.min()), int(known.max())
    if node.op != "call_function":
        return None
    name = operation(node)
    if name in ("zeros", "zeros_like", "new_zeros", "zero"):
        return 0, 0
    if name in ("ones", "ones_like", "new_ones"):
        return 1, 1
    if name in _FILLED:
        filler = argument(node, _FILLED[name])
        return (filler, filler) if isinstance(filler, int) else None
    if name in ("gather", "take_along_dim"):
        return met(graph, node.args[0])
    if not (is_move(node) or name in ("_to_copy", "to", "where")):
        return None
    picked = [n for n in node.all_input_nodes if value(n).dtype != torch.bool]
    if name in ("index", "index_select", "repeat_interleave", "_to_copy", "to"):
        picked = picked[:1]
    ends = [end for n in picked if (end := met(graph, n)) is not None]
    if len(ends) < max(len(picked), 2 if name == "where" else 1):
        return None
    return min(low for low, _ in ends), max(high for _, high in ends)


def is_pure(graph: Graph, node: Node) -> bool:
    """Does each lookup read the same place for all the other dimensions' entries?"""
    if operation(node) != "index":
        return operation(node) in _ALONG and not isinstance(value(node), tuple | list)
    return not any(index in graph.known for index in node.args[1] if isinstance(index, Node))  # type: ignore[union-attr]


def _ndim(node: Node) -> int:
    first = node.args[0]
    found = value(first) if isinstance(first, Node) else None
    return found.ndim if isinstance(found, Tensor) else 1


def _is_integer(node: Node) -> bool:
    found = value(node)
    return isinstance(found, Tensor) and not found.is_floating_point() and not found.is_complex()
