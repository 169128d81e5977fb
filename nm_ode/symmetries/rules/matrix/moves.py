"""Coordinates through operations that move entries about, or read them at places that the batch says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.labels import NONE, move
from nm_ode.symmetries.lookups import is_pure, open_dims, place_of_index
from nm_ode.symmetries.operations import argument, operation, value
from nm_ode.symmetries.padding import padding_row, stays_zero
from nm_ode.symmetries.rules.matrix.coordinates import (
    ZERO,
    Labels,
    folded,
    numbered,
    settled,
    varies,
)
from nm_ode.symmetries.rules.matrix.traversal import CoordinateTraversal
from nm_ode.symmetries.rules.weights import Weight, moved_weight


def moved(t: CoordinateTraversal, node: Node) -> Any:
    """The labels move as the entries do."""
    if not any(t.known(needed) is not None for needed in node.all_input_nodes):
        return None
    found = t.known(node.args[0] if node.args else None)
    dims = open_dims(t.graph, node)
    if isinstance(found, Weight):
        if not dims and (weight := moved_weight(node, found)) is not None:
            return weight
        found = _of_weight(t, node, found, dims)
        return None if found is None else _looked_up(t, node, found, dims) if dims else _moved(t, node, found)
    if dims:
        return _looked_up(t, node, found, dims) if isinstance(found, Labels) else t.forbid(node)
    return _moved(t, node, None)


def _of_weight(t: CoordinateTraversal, node: Node, weight: Weight, dims: tuple[int, ...]) -> Labels | None:
    """A parameter that is copied: its vectors lie along the last axis of those that are not looked up along."""
    axes = [axis for axis in range(weight.view.ndim) if axis not in dims]
    if not axes:
        t.sides.use(weight)
        return None
    return t.of_weight(node, weight, axes[-1:])


def _moved(t: CoordinateTraversal, node: Node, first: Labels | None) -> Any:
    others = [needed for needed in node.all_input_nodes if t.weight(needed) is not None]
    like = next((t.known(n) for n in node.all_input_nodes if isinstance(t.known(n), Labels)), None)
    weights = {needed: t.as_tensor(node, needed, like) for needed in others if needed is not node.args[0]}
    if first is not None:
        weights[node.args[0]] = first  # type: ignore[index]

    def read(of: str) -> Any:
        nothing = torch.tensor(NONE if of == "coordinates" else 0)

        def one(needed: Any) -> Any:
            index = place_of_index(t.graph, needed)
            if index is not None:
                return index
            found = weights.get(needed) or t.known(needed)
            if isinstance(found, list | tuple):
                shapes = [tuple(part.shape) for part in value(needed)]
                return [
                    getattr(part, of) if isinstance(part, Labels) else nothing.expand(shape)
                    for part, shape in zip(found, shapes, strict=True)
                ]
            return (
                getattr(found, of)
                if isinstance(found, Labels)
                else nothing.expand(tuple(value(needed).shape))
            )

        return move(node, one)

    if operation(node) == "getitem":
        parts = t.known(node.args[0])
        return parts[node.args[1]] if isinstance(parts, list | tuple) else None  # type: ignore[index]
    return _paired(read("coordinates"), read("fibres"))


def _paired(coordinates: Any, fibres: Any) -> Any:
    if isinstance(coordinates, list | tuple):
        return [_paired(*parts) for parts in zip(coordinates, fibres, strict=True)]
    return Labels(settled(coordinates), settled(fibres))


def _looked_up(t: CoordinateTraversal, node: Node, x: Labels, dims: tuple[int, ...]) -> Any:
    """Along some dimensions the batch says what is read: all there have the same coordinates."""
    if not is_pure(t.graph, node) or len(dims) == len(x.shape):
        t.conditions.forbid(x)
        return None
    keep = tuple(dim for dim in range(len(x.shape)) if dim not in dims)
    coordinates, fibres = t.conditions.merge(x.coordinates, keep), folded(x.fibres, dims)
    for dim in dims:
        coordinates = coordinates.unsqueeze(dim)

    def carried(labels: Tensor) -> Tensor:
        whole = labels.expand(x.shape)

        def read(needed: Any) -> Any:
            index = place_of_index(t.graph, needed)
            return whole if needed is node.args[0] else needed if index is None else index

        made = move(node, read)
        assert isinstance(made, Tensor)
        return settled(made)

    coordinates, fibres = carried(coordinates), carried(fibres)
    along = tuple(dim for dim in range(coordinates.ndim) if dim not in varies(coordinates))
    place = numbered(tuple(coordinates.shape), along)
    return Labels(coordinates, t.fibre(node, fibres, place))


def padded(t: CoordinateTraversal, node: Node) -> Any:
    """Zeros around: coordinates of anything."""
    x, pad = node.args[0], argument(node, "pad")
    labels = t.as_tensor(node, x)
    if labels is None:
        return None
    zero = not argument(node, "value") and argument(node, "mode", "constant") == "constant"
    if not zero or not all(isinstance(n, int) for n in pad):
        t.conditions.forbid(labels)
        return t.forbid(node, "what is put around it is not zero")
    return Labels(
        settled(torch.constant_pad_nd(labels.coordinates, pad, ZERO)),
        settled(torch.constant_pad_nd(labels.fibres, pad, 0)),
    )


def embedded(t: CoordinateTraversal, node: Node) -> Any:
    """Rows of a table: each a vector of its own."""
    weight = t.weight(node.args[0])
    if weight is None or weight.view.ndim != 2:
        return t.forbid(node)
    if padding_row(node) is not None and not stays_zero(t.graph, node):
        return t.forbid(node, "its padding row is not zero, and has no gradient")
    (coordinates,) = t.sides.use(weight, (1,))
    shape = tuple(int(n) for n in value(node).shape)
    return Labels(coordinates.expand(shape), t.fresh(node, shape, range(len(shape) - 1)))
