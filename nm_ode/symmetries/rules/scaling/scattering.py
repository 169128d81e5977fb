"""Factors through reading and writing at places: what the places tie has one factor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.lookups import place_of_index
from nm_ode.symmetries.operations import argument, registering, value
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("gather", "take_along_dim")
def _gather(s: ScalingTraversal, node: Node) -> Any:
    """result[i, j] = x[index[i, j], j]."""
    x, dim = node.args[0], argument(node, "dim")
    result = tuple(value(node).shape)
    if not isinstance(x, Node) or dim is None or not result:
        return None
    dim %= len(result)
    return _cut(s.tied(x, (dim,)).narrow(dim, 0, 1), result, dim)


def _cut(labels: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """The first entries along all dimensions but one, along which all are alike."""
    for other, n in enumerate(shape):
        if other != dim and labels.shape[other] > n:
            labels = labels.narrow(other, 0, n)
    return labels.expand(shape)


@_rule("index_add", "index_copy", "scatter", "scatter_add", "index_reduce", "scatter_reduce")
def _scatter(s: ScalingTraversal, node: Node) -> Any:
    """What is there and what is added, put in its place or compared with it, along one dimension."""
    into, dim = node.args[0], argument(node, "dim")
    source = argument(node, "source", argument(node, "src"))
    reduced = argument(node, "reduce", "sum")
    if not isinstance(into, Node) or not isinstance(value(into), Tensor) or not value(into).ndim:
        return None
    if reduced in ("prod", "multiply"):
        return None
    if not isinstance(source, Node):  # a number that is put in
        if argument(node, "value") != 0 or reduced not in ("sum", "add"):
            return None
        return s.labels(into)
    shape, dim = tuple(value(into).shape), dim % value(into).ndim
    there = s.tied(into, (dim,))
    if value(source).ndim == len(shape) and not s.is_zero(source):
        given = s.tied(source, (dim,)).narrow(dim, 0, 1)
        index = argument(node, "index")
        if value(index).ndim == len(shape):
            given = _cut(given, (*value(index).shape[:dim], 1, *value(index).shape[dim + 1 :]), dim)
        both = there.narrow(dim, 0, 1)
        s.variables.equal(_cut(both, tuple(given.shape), dim), given)
    elif not s.is_zero(source):
        return None
    return there


@_rule("index_put", "_unsafe_index_put")
def _put(s: ScalingTraversal, node: Node) -> Any:
    """Entries at places, of which those along the dimensions with an index have one factor."""
    into, places, values = node.args[:3]
    if not isinstance(into, Node) or not isinstance(places, list | tuple) or not isinstance(values, Node):
        return None
    labels = s.tied(into, tuple(dim for dim, index in enumerate(places) if index is not None))
    if not s.is_zero(values):
        indices = [None if index is None else place_of_index(s.graph, index) for index in places]
        if any(index is None for index, given in zip(indices, places, strict=True) if given is not None):
            return None
        if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices) or any(
            value(index).dtype == torch.bool for index in places if index is not None
        ):
            s.variables.equal(labels, s.variables.merge(labels, ()))
            s.variables.equal(labels, s.variables.merge(s.labels(values), ()))
            return labels
        read = torch.ops.aten.index.Tensor(labels, indices)
        s.variables.equal(read, s.labels(values).expand(read.shape))
    return labels


@_rule("slice_scatter", "select_scatter", "diagonal_scatter")
def _written(s: ScalingTraversal, node: Node) -> Any:
    """A part of a tensor is put in the place of another's: carried out on the labels."""
    into, source = node.args[:2]
    if node in s.graph.sized:  # where is the batch's
        return None
    arguments = (s.labels(into), s.labels(source), *node.args[2:])
    return node.target(*arguments, **node.kwargs)  # type: ignore[operator]


@_rule("masked_scatter", "put")
def _anywhere(s: ScalingTraversal, node: Node) -> Any:
    """Which entry goes where is the batch's: all have one factor."""
    into, source = node.args[0], node.args[2]
    labels = s.labels(into)
    one = s.variables.merge(labels, ())
    s.variables.equal(s.labels(source), one)
    return one.expand(labels.shape)
