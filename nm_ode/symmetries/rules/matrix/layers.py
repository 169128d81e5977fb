"""Coordinates through convolutions: their weights are matrices between channels, one for each offset."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from nm_ode.symmetries.operations import argument, operation, value
from nm_ode.symmetries.rules.matrix.bonds import Lettered, bond
from nm_ode.symmetries.rules.matrix.coordinates import Labels, numbered, one_vector, varies, zeros
from nm_ode.symmetries.rules.matrix.sums import added
from nm_ode.symmetries.rules.matrix.traversal import CoordinateTraversal
from nm_ode.symmetries.rules.weights import Weight


def convolved(t: CoordinateTraversal, node: Node) -> Any:
    """Channels are read, and channels are made, at each position alike."""
    x, weight, groups = node.args[0], t.weight(node.args[1]), int(argument(node, "groups", 1))
    labels, result = t.labels(x), value(node)
    transposed = "transpose" in operation(node)
    bias = argument(node, "bias")
    if weight is None or result.ndim != value(x).ndim or result.ndim < 3 or (transposed and groups > 1):
        return t.forbid(node)
    shape = tuple(int(n) for n in result.shape)
    if labels is not None and labels.zero:
        made: Labels | None = zeros(shape)
    else:
        made = _by_weight(t, node, labels, weight, groups, transposed=transposed)
    if bias is None:
        return made
    own = t.weight(bias)
    if own is None or own.view.ndim != 1:
        t.forbid_value(t.known(bias))
        return added(t, node, [made, None])
    # Channels are not the last dimension, along which a sum would be broadcast.
    column = Weight(own.name, own.view.reshape(-1, *[1] * (len(shape) - 2)), own.frozen)
    return added(t, node, [made, t.of_weight(node, column, (0,))])


def _by_weight(
    t: CoordinateTraversal, node: Node, x: Labels | None, weight: Weight, groups: int, *, transposed: bool
) -> Labels:
    shape, view = tuple(int(n) for n in value(node).shape), weight.view
    reads = x is not None and 1 in varies(x.coordinates)
    out, into = (1, 0) if transposed else (0, 1)
    if groups > 1:
        view = view.unflatten(0, (groups, -1))
    taken = Weight(weight.name, view, weight.frozen)
    reads = reads and (groups == 1 or view.shape[2] > 1)
    sides = [(out,) if groups == 1 else (0, 1)]
    if reads:
        sides.append((into,) if groups == 1 else (0, 2))
    found = t.sides.use(taken, *sides)
    if reads:
        assert x is not None
        labels, columns = x, found[1]
        if groups > 1:
            labels = Labels(
                labels.coordinates.unflatten(1, (groups, -1)), labels.fibres.unflatten(1, (groups, -1))
            )
        batch = ("g",) if groups > 1 else ()
        space = tuple(f".{i}" for i in range(len(shape) - 2))
        sizes = dict(zip(("b", *batch, "c", *space), labels.shape, strict=True))
        bond(
            t.conditions,
            Lettered(labels, ("b", *batch, "c", *space)),
            Lettered(one_vector(columns), (*batch, "c")),
            batch,
            ("c",),
            sizes,
        )
    else:
        t.conditions.forbid(x)
    rows = found[0].reshape(-1, *[1] * (len(shape) - 2)).expand(shape)
    places = numbered(shape, tuple(dim for dim in range(len(shape)) if dim != 1))
    if groups > 1:
        group = numbered((groups, shape[1] // groups), (0,)).reshape(-1, *[1] * (len(shape) - 2))
        return Labels(rows, t.fibre(node, places, group))
    return Labels(rows, t.fibre(node, places))
