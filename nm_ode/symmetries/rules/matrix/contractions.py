"""Coordinates through contractions: a weight reads them along one side and makes others along the other."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from nm_ode.symmetries.operations import value
from nm_ode.symmetries.operations.contractions import Contraction, Letters, Operand
from nm_ode.symmetries.rules.matrix.bonds import Lettered, arranged, bond
from nm_ode.symmetries.rules.matrix.coordinates import Labels, folded, numbered, one_vector, zeros
from nm_ode.symmetries.rules.matrix.sums import added
from nm_ode.symmetries.rules.matrix.traversal import CoordinateTraversal
from nm_ode.symmetries.rules.weights import Weight


def contract(t: CoordinateTraversal, node: Node, form: Contraction) -> Labels | None:
    """The coordinates of a contraction's result, or None."""
    weights = t.weight(form.a.node), t.weight(form.b.node)
    labels = t.labels(form.a.node), t.labels(form.b.node)
    if any(one is not None and one.zero for one in labels):
        made: Labels | None = zeros(tuple(value(node).shape))
    elif weights[0] is not None and weights[1] is not None:
        made = _of_weights(t, node, form, weights)  # type: ignore[arg-type]
    elif weights[1] is not None:
        made = _by_weight(t, node, form, form.a, form.b, weights[1])
    elif weights[0] is not None:
        made = _by_weight(t, node, form, form.b, form.a, weights[0])
    else:
        made = _of_tensors(t, node, form)
    if form.added is None:
        return made
    return added(t, node, [made, form.added])


def _sizes(form: Contraction) -> dict[str, int]:
    return {
        c: int(n)
        for operand in (form.a, form.b)
        for c, n in zip(operand.letters, value(operand.node).shape, strict=True)
        if c
    }


def _axes(letters: Letters, wanted: Letters) -> tuple[int, ...]:
    """Where the letters lie that a weight has, in their order there."""
    return tuple(axis for axis, c in enumerate(letters) if c in wanted)


def _by_weight(
    t: CoordinateTraversal, node: Node, form: Contraction, x: Operand, w: Operand, weight: Weight
) -> Labels | None:
    """Of what is no weight with one."""
    sizes, labels = _sizes(form), t.labels(x.node)
    made_along = tuple(c for c in w.letters if c and c in form.out)
    read_along = (*(c for c in form.batch), *form.contracted)
    reads = labels is not None and bool(
        Lettered(labels, x.letters).letters_of_coordinates() & set(form.contracted)
    )
    sides = [_axes(w.letters, made_along)] if made_along else []
    found = t.sides.use(weight, *sides, *([_axes(w.letters, read_along)] if reads else []))
    if reads:
        assert labels is not None
        in_order = tuple(c for c in w.letters if c in read_along)
        bond(
            t.conditions,
            Lettered(labels, x.letters),
            Lettered(one_vector(found[-1]), in_order),
            form.batch,
            form.contracted,
            sizes,
        )
    elif labels is not None:
        t.end(node, x.node, "its coordinates are not what the weight reads")
    if not made_along:
        return None
    in_order = tuple(c for c in w.letters if c in made_along)
    return _made(t, node, form, found[0], in_order, form.free(x) + form.batch)


def _made(
    t: CoordinateTraversal, node: Node, form: Contraction, coordinates: Any, letters: Letters, places: Letters
) -> Labels:
    """A weight's coordinates in the result, a vector at each place along some letters."""
    shape = tuple(int(n) for n in value(node).shape)
    sizes = dict(zip(form.out, shape, strict=True))
    return Labels(
        arranged(coordinates, letters, form.out, sizes),
        t.fresh(node, shape, [dim for dim, c in enumerate(form.out) if c and c in places]),
    )


def _of_weights(
    t: CoordinateTraversal, node: Node, form: Contraction, weights: tuple[Weight, Weight]
) -> Labels | None:
    """Of two weights: what they are contracted over is a bottleneck; the result is mixed along the first one's rows."""
    sizes = _sizes(form)
    read_along = (*form.batch, *form.contracted)
    makers = [operand for operand in (form.a, form.b) if form.free(operand)]
    maker = min(makers, key=lambda operand: form.out.index(form.free(operand)[0])) if makers else None
    readings, made = [], None
    for operand, weight in zip((form.a, form.b), weights, strict=True):
        axes = [_axes(operand.letters, read_along)] if form.contracted else []
        if operand is maker:
            axes.append(_axes(operand.letters, (*form.free(operand), *form.batch)))
        found = t.sides.use(weight, *axes)
        if form.contracted:
            readings.append(
                Lettered(one_vector(found[0]), tuple(c for c in operand.letters if c in read_along))
            )
        if operand is maker:
            along = (*form.free(operand), *form.batch)
            in_order = tuple(c for c in operand.letters if c in along)
            other = form.b if operand is form.a else form.a
            made = _made(t, node, form, found[-1], in_order, form.free(other) + form.batch)
    if form.contracted:
        one, two = readings
        bond(t.conditions, one, two, form.batch, form.contracted, sizes)
    return made


def _of_tensors(t: CoordinateTraversal, node: Node, form: Contraction) -> Labels | None:
    """Of two tensors: coordinates of both are contracted, or one mixes what is no coordinate of the other."""
    sizes = _sizes(form)
    operands = [
        (operand, Lettered(labels, operand.letters))
        for operand in (form.a, form.b)
        if (labels := t.labels(operand.node)) is not None
    ]
    read = [bool(one.letters_of_coordinates() & set(form.contracted)) for _, one in operands]
    if read == [
        True
    ]:  # experts by a weight each: several vectors are added, whose coordinates lie along another letter
        operand, one = operands[0]
        other = form.b if operand is form.a else form.a
        read = [one.letters_of_coordinates() <= set(other.letters)]
    if read == [True, True]:
        bond(t.conditions, operands[0][1], operands[1][1], form.batch, form.contracted, sizes)
        return None
    handed_on = [pair for pair, contracted in zip(operands, read, strict=True) if not contracted]
    for (operand, _), contracted in zip(operands, read, strict=True):
        if contracted or len(handed_on) > 1:
            t.end(node, operand.node, "what it is contracted with is no weight and no other vector")
    return _mixed(t, node, form, *handed_on[0]) if len(handed_on) == 1 else None


def _mixed(
    t: CoordinateTraversal, node: Node, form: Contraction, operand: Operand, x: Lettered
) -> Labels | None:
    """Σ_k a[…, k] x[k, …]: vectors are mixed, all coordinates in the same way along the letters that `a` has not."""
    shape = tuple(int(n) for n in value(node).shape)
    sizes = _sizes(form) | {c: n for c, n in zip(form.out, shape, strict=True) if c}
    other = form.b if operand is form.a else form.a
    of_other = set(other.letters)
    if x.letters_of_coordinates() <= of_other:
        t.end(node, operand.node, "each coordinate is multiplied by another number")
        return None
    kept = tuple(c for c in form.out if c and c in operand.letters)
    gone = tuple(c for c in operand.letters if c and c not in form.out)
    labels = x.arranged((*kept, *gone), sizes)
    coordinates = t.conditions.merge(labels.coordinates, tuple(range(len(kept))))
    fibres = folded(labels.fibres, tuple(range(len(kept), len(kept) + len(gone))))
    fibres = fibres.flatten(len(kept))[..., 0] if gone else fibres
    row = numbered(shape, tuple(dim for dim, c in enumerate(form.out) if c and c in of_other))
    return Labels(
        arranged(coordinates, kept, form.out, sizes),
        t.fibre(node, arranged(fibres, kept, form.out, sizes), row),
    )
