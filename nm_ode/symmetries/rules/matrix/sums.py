"""Coordinates through sums and products, and through what is linear along dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from nm_ode.symmetries.ended import ended
from nm_ode.symmetries.operations import argument, operation, value
from nm_ode.symmetries.operations.contractions import in_inner_product
from nm_ode.symmetries.operations.declared import is_number
from nm_ode.symmetries.rules.matrix.coordinates import Labels, folded, numbered, varies, zeros
from nm_ode.symmetries.rules.matrix.traversal import CoordinateTraversal, unmixed


def added(t: CoordinateTraversal, node: Node, terms: Sequence[Any]) -> Labels | None:
    """A linear combination of terms: nodes, or labels that have been made already (None: nothing of it is one)."""
    shape = tuple(value(node).shape)
    read: list[Labels | None] = [t.labels(term) if isinstance(term, Node) else term for term in terms]
    like = next((labels for labels in read if labels is not None and labels.live), None)
    if like is not None:
        like = like.expand(shape)
    elif all(t.weight(term) is None for term in terms):
        alive = [labels for labels in read if labels is not None]
        return zeros(shape) if len(alive) == len(read) else None
    found: list[Labels] = []
    for term, labels in zip(terms, read, strict=True):
        if t.weight(term) is not None:
            labels = t.as_tensor(node, term, like)
            if like is None and labels is not None:
                like = labels.expand(shape)
        if labels is None:
            labels = unmixed(node)
        found.append(labels.expand(shape))
    coordinates = found[0].coordinates
    for labels in found[1:]:
        coordinates = t.conditions.alike(coordinates, labels.coordinates)
    return Labels(coordinates, t.fibre(node, *(labels.fibres for labels in found)))


def scaled(t: CoordinateTraversal, node: Node, x: Any, factor: Any = None) -> Any:
    """Multiplied by a number, or by a tensor of which nothing is a coordinate."""
    weight, labels, shape = t.weight(x), t.labels(x), tuple(value(node).shape)
    plain = not isinstance(factor, Node) or value(factor).numel() == 1
    if weight is not None:
        if plain and tuple(weight.view.shape) == shape:
            return weight
        labels = t.as_tensor(node, x)
    if labels is None:
        return None
    labels = labels.expand(shape)
    if plain:
        return Labels(labels.coordinates, t.fibre(node, labels.fibres))
    return _place_by_place(t, node, labels, factor, [x])


def _place_by_place(
    t: CoordinateTraversal, node: Node, labels: Labels, by: Node, inputs: Sequence[Node]
) -> Labels | None:
    """Multiplied, or chosen, by a tensor that must be the same for all coordinates."""
    shape, own = labels.shape, tuple(value(by).shape)
    along = tuple(len(shape) - len(own) + dim for dim, n in enumerate(own) if n > 1)
    if set(varies(labels.coordinates)) <= set(along) and not labels.zero:
        ended(node, "each coordinate is multiplied by another number", inputs=inputs)
        t.conditions.forbid(labels)
        return None
    return Labels(labels.coordinates, t.fibre(node, labels.fibres, numbered(shape, along)))


def product(t: CoordinateTraversal, node: Node) -> Any:
    """x · y or x / y."""
    a, b = argument(node, "self"), argument(node, "other")
    if argument(node, "rounding_mode") is not None:
        return t.forbid(node)
    if in_inner_product(node):
        return None  # its sum has the rule
    if is_number(b):
        return scaled(t, node, a)
    division = "div" in str(node.target)
    if is_number(a):
        return t.forbid(node) if division else scaled(t, node, b)
    operands = [a] if division else [a, b]
    # A parameter beside coordinates is a factor; of two tensors the one with coordinates is what is multiplied.
    mixed = [
        one for one in operands if (labels := t.labels(one)) is not None and (labels.live or labels.zero)
    ]
    if not mixed:
        mixed = [one for one in operands if t.weight(one) is not None and _is_alone(t, one, a, b)]
    if len(mixed) != 1 or (division and t.labels(b) is not None):
        return t.forbid(node)
    factor = b if mixed[0] is a else a
    t.forbid_value(t.known(factor))
    return scaled(t, node, mixed[0], factor)


def _is_alone(t: CoordinateTraversal, one: Any, a: Any, b: Any) -> bool:
    other = b if one is a else a
    return t.known(other) is None


def masked(t: CoordinateTraversal, node: Node) -> Any:
    """x where a mask lets it, else zero."""
    x, mask, fill = node.args[:3]
    if not (is_number(fill) and fill == 0):
        return t.forbid(node)
    return scaled(t, node, x, mask) if t.weight(x) is None else t.forbid(node)


def chosen(t: CoordinateTraversal, node: Node) -> Any:
    """where(condition, a, b): a sum of two that are masked."""
    condition, a, b = node.args[:3]
    terms = [one for one in (a, b) if not (is_number(one) and one == 0)]
    if not all(isinstance(one, Node) for one in terms) or any(t.weight(one) is not None for one in terms):
        return t.forbid(node)
    made = added(t, node, terms)
    return None if made is None else _place_by_place(t, node, made, condition, terms)  # type: ignore[arg-type]


def along_dimensions(t: CoordinateTraversal, node: Node, x: Any, dims: Sequence[int]) -> Any:
    """Linear along some dimensions, in the same way at each place along the others: a mean, a pool, a sum."""
    labels = t.as_tensor(node, x)
    if labels is None:
        return None
    shape, before = tuple(value(node).shape), labels.shape
    gone, dims = len(before) - len(shape), tuple(dims)
    kept = tuple(dim for dim in range(len(before)) if dim not in dims)
    coordinates = t.conditions.merge(labels.coordinates, kept)
    fibres = folded(labels.fibres, dims)
    if gone == len(dims):
        fibres = fibres[tuple(0 if dim in dims else slice(None) for dim in range(len(before)))]
        made = Labels(coordinates, t.fibre(node, fibres))
        return made.expand(shape)
    if gone:
        return t.forbid(node)
    for dim in sorted(dims):
        coordinates = coordinates.unsqueeze(dim)
    return Labels(
        coordinates.expand(shape),
        t.fibre(node, fibres.expand(shape), numbered(shape, dims)),
    )


def scattered(t: CoordinateTraversal, node: Node) -> Any:
    """Rows that are added up in places which an index says, the same for all coordinates."""
    base, dim, source = argument(node, "self"), argument(node, "dim"), argument(node, "source")
    source = argument(node, "src") if source is None else source
    labels, shape = t.labels(source), tuple(int(n) for n in value(node).shape)
    if labels is None or argument(node, "reduce", "sum") not in ("sum", "mean"):
        return t.forbid(node)
    along = dim % len(shape) if shape else 0
    if "scatter" in operation(node):
        index = value(argument(node, "index"))
        alike = all(index.stride(d) == 0 for d in varies(labels.coordinates))
        if tuple(index.shape) != labels.shape or not alike:
            return t.forbid(node, "each coordinate goes to a place of its own")
    kept = tuple(d for d in range(len(shape)) if d != along)
    coordinates = t.conditions.merge(labels.coordinates, kept).unsqueeze(along)
    if any(labels.shape[d] != shape[d] for d in kept):
        return t.forbid(node)
    fibres = folded(labels.fibres, (along,)).expand(shape)
    made = Labels(coordinates.expand(shape), t.fibre(node, fibres, numbered(shape, (along,))))
    return added(t, node, [base, made])
