"""Backward through the graph with labels for every tensor, by a rule for each operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import NONE, is_move, move
from nm_ode.symmetries.lookups import is_pure, open_dims, place_of_index
from nm_ode.symmetries.operations import operation, value
from nm_ode.symmetries.rules.translation.partitions import collect, join, per_row

Labelled: TypeAlias = list[tuple[Node, Tensor | None]]
"""The labels of some nodes, None where nothing may be shifted."""

Rule: TypeAlias = Callable[[Node, Tensor | None], Sequence[tuple[Node, Tensor | None]]]
"""From an operation and the labels of its result to those that it gives to its inputs."""


def shift_labels(graph: Graph, rules: Mapping[str, Rule]) -> dict[str, Tensor]:
    """Parameter name → labels of its entries (its shape, int64, −1 for none); parameters without any are left out."""
    labels: dict[Node, Tensor | None] = {}
    for node in reversed(graph.operations):
        mine = None if node is graph.loss else labels.pop(node, None)
        for needed, found in _inputs(graph, rules, node, mine):
            labels[needed] = join(labels[needed], found) if needed in labels else found
    named: dict[str, Tensor] = {}
    for node, name in graph.parameters.items():
        found = labels.get(node)
        if found is not None and bool((found != NONE).any()):
            named[name] = found
    return named


def _inputs(graph: Graph, rules: Mapping[str, Rule], node: Node, mine: Tensor | None) -> Labelled:
    """Labels that a node gives to each of its inputs."""
    needed = [n for n in node.all_input_nodes if n not in graph.known]
    if isinstance(value(node), tuple | list) and is_move(node):
        return []  # each of its results has labels of its own
    given: dict[Node, Tensor | None] = dict.fromkeys(needed)
    rule = rules.get(operation(node))
    if is_move(node):
        parts = node.args[0] if operation(node) == "getitem" else None
        if isinstance(parts, Node) and is_move(parts):  # one of chunk's pieces, say
            source = parts.all_input_nodes[0]
            return [(source, _piece_back(node, parts, source, mine))]
        dims = open_dims(graph, node)
        for source in needed:
            if not dims:
                given[source] = _moved_back(graph, node, source, mine)
            elif source is node.args[0] and is_pure(graph, node):
                given[source] = _looked_up_back(graph, node, dims, mine)
    elif rule is not None:
        seen: set[Node] = set()
        for source, found in rule(node, mine):
            # The same tensor in two places of one operation: both must allow it.
            given[source] = join(given[source], found) if source in seen else found
            seen.add(source)
    return list(given.items())


def _moved_back(graph: Graph, node: Node, source: Node, mine: Tensor | None) -> Tensor | None:
    """Labels of the source of a move: those of the places where its entries went.

    Entries that went nowhere are free; a label that reaches over entries of several sources is lost, since none of
    them may be shifted without the others.
    """
    if not isinstance(value(source), Tensor) or place_of_index(graph, source) is not None:
        return None
    shape = tuple(value(source).shape)
    size = int(np.prod(shape))
    mine = _nothing(node) if mine is None else mine
    numbers = torch.arange(size).reshape(shape)
    nothing = torch.full((), -1, dtype=torch.int64)

    def read(n: Any) -> Any:
        if n is source:
            return numbers
        index = place_of_index(graph, n)
        if index is not None:
            return index
        other = value(n)
        return nothing.expand(tuple(other.shape)) if isinstance(other, Tensor) else None

    went = move(node, read)
    if not isinstance(went, Tensor):
        return None
    shared = mine[went == -1].unique()
    mine = torch.where(torch.isin(mine, shared), NONE, mine) if shared.numel() else mine
    return collect(went, mine, size).reshape(shape)


def _looked_up_back(graph: Graph, node: Node, dims: tuple[int, ...], mine: Tensor | None) -> Tensor | None:
    """Labels of the source of a lookup, at places that the batch says, along `dims`.

    Each place may be shifted by its own amount, along the other dimensions as every lookup's result may be.
    """
    source = node.args[0]
    assert isinstance(source, Node)
    shape = tuple(value(source).shape)
    rest = [n for dim, n in enumerate(shape) if dim not in dims]
    size = int(np.prod(rest))
    row = torch.arange(size).reshape([1 if dim in dims else n for dim, n in enumerate(shape)]).expand(shape)
    went = move(node, lambda n: row if n is source else place_of_index(graph, n))
    if mine is None or not isinstance(went, Tensor) or went.numel() != mine.numel() or not size:
        return None
    # The entries of one place of the rest in the order of the lookups, which is the same for all.
    order = torch.argsort(went.reshape(-1), stable=True).reshape(size, -1)
    allowed = per_row(mine.reshape(-1)[order].T)
    if allowed is None:
        return None
    places = int(np.prod(shape)) // size
    place = torch.arange(places).reshape([n if dim in dims else 1 for dim, n in enumerate(shape)])
    classes = allowed[row]
    return torch.where(classes == NONE, NONE, classes * places + place)


def _nothing(node: Node) -> Tensor:
    """Labels of a result of which nothing may be shifted."""
    return torch.full((), NONE, dtype=torch.int64).expand(tuple(value(node).shape))


def _piece_back(node: Node, parts: Node, source: Node, mine: Tensor | None) -> Tensor | None:
    mine = _nothing(node) if mine is None else mine
    shape = tuple(value(source).shape)
    numbers = torch.arange(int(np.prod(shape))).reshape(shape)
    went = move(parts, lambda _: numbers)[node.args[1]]
    return collect(went, mine, numbers.numel()).reshape(shape)


def labelled(*pairs: tuple[Any, Tensor | None]) -> Labelled:
    """Of the pairs those whose argument is a node."""
    return [(node, labels) for node, labels in pairs if isinstance(node, Node)]


def broadcast_back(node: Node, mine: Tensor | None) -> Tensor | None:
    """Labels of an operand that was broadcast to the shape of `mine`."""
    if mine is None:
        return None
    shape = tuple(value(node).shape)
    size = int(np.prod(shape))
    return collect(torch.arange(size).reshape(shape).expand(mine.shape), mine, size).reshape(shape)
