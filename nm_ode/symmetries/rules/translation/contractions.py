"""Shifts through contractions: matrix products in any spelling, convolutions, embeddings.

In Σ a b either factor may shift: what the one's shift adds is that shift times the other, which becomes the row. Of the
two one is taken as it was and one as it is after the shift, so that both together are all that is added.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.labels import is_copy, placed
from nm_ode.symmetries.lookups import met
from nm_ode.symmetries.operations import argument, dims_of, operation, registering, value
from nm_ode.symmetries.operations.contractions import (
    CONTRACTIONS,
    Contraction,
    Letters,
    Operand,
    contraction_of,
    entrywise,
    inner_product_of,
)
from nm_ode.symmetries.padding import padding_row
from nm_ode.symmetries.rules.translation.declared import by_table, mixed
from nm_ode.symmetries.rules.translation.shifts import (
    MOST_ROWS,
    ONE,
    Shift,
    Term,
    added,
    constant,
    content,
    first,
    numbered,
    same,
    tied,
    varying,
)
from nm_ode.symmetries.rules.translation.system import ZERO
from nm_ode.symmetries.rules.translation.traversal import Rule, ShiftTraversal
from nm_ode.symmetries.rules.weights import Weight

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule(*CONTRACTIONS)
def _contraction(s: ShiftTraversal, node: Node) -> Shift | None:
    found = contraction_of(node)
    return None if found is None else contracted(s, node, found)


@dataclass(frozen=True, eq=False)
class _Factor:
    """The factor that makes the rows: it varies along some letters of the result."""

    operand: Operand
    identity: Hashable
    vary: tuple[int, ...]


def contracted(s: ShiftTraversal, node: Node, c: Contraction, how: str = "") -> Shift:
    """The shift of alpha · Σ a b + beta · added.

    Args:
        how: what is done to the second factor first; then it may not shift.
    """
    shape = tuple(value(node).shape)
    parts: list[tuple[float, Shift]] = []
    moved = c.a if s.weight(c.a.node) is not None else c.b
    if c.a.node is c.b.node:
        moved = c.b
    for operand, other in ((c.a, c.b), (c.b, c.a)):
        if how and operand is c.b:
            s.hold(operand.node)
            continue
        vary = tuple(i for i, letter in enumerate(c.out) if letter and letter in other.letters)
        identity = (s.identity(other.node, other is moved), how)
        parts.append((c.alpha, _of_factor(s, operand, _Factor(other, identity, vary), c.out, shape)))
    if c.added is not None:
        parts.append((c.beta, s.read(c.added)))
    return added(s.system, shape, *parts)


def _of_factor(
    s: ShiftTraversal, operand: Operand, other: _Factor, out: Letters, shape: tuple[int, ...]
) -> Shift:
    """What a factor's shift adds to the result."""
    if not s.depends(operand.node) or other.operand.node in s.reached.zeros:
        return []
    letters = operand.letters
    gone = [i for i, letter in enumerate(letters) if letter not in out]
    theirs = [letter for letter in other.operand.letters if letter and letter not in out]
    inner = tuple(letters.index(letter) for letter in theirs if letter in letters)
    dims = tuple(other.operand.letters.index(letter) for letter in theirs if letter in letters)
    summed = tuple(other.operand.letters.index(letter) for letter in theirs if letter not in letters)
    alone = [i for i in gone if letters[i] and i not in inner]
    sizes = tuple(int(value(other.operand.node).shape[dim]) for dim in dims)
    everywhere = all(n == 1 or i in other.vary for i, n in enumerate(shape))
    weight = s.weight(operand.node)
    rows = numbered(shape, other.vary)
    # Rows are numbered in the result's order of the other factor's dimensions.
    order = tuple(other.operand.letters.index(out[i]) for i in other.vary)
    whole = other.identity, dims, summed, order
    if any(int(value(operand.node).shape[i]) > 1 for i in alone):
        s.hold(
            operand.node
        )  # it is added as often as there are entries, which another batch may have more of
        return []
    if weight is not None:
        if everywhere and _many(shape, inner):
            s.uses.hold(weight)
            return []
        if inner:
            labels = s.uses.rows(weight, inner)
            labels = _where_not_zero(s, other, _placed(labels, gone, letters, out, shape), out)
            return [Term(("rows", *whole), s.owner(weight), prod(sizes), rows, labels)]
    found = []
    for term in s.read(operand.node):
        labels = term.labels
        row: Hashable
        if term.row == ONE and set(varying(labels)) & set(inner):
            labels = s.packed(labels, inner, sizes)
            row, size, where = ("rows", *whole), prod(sizes), rows
        elif term.row == ONE:
            labels, size = tied(s.system, labels, inner), 1
            row, where = ("sums", *whole), rows
            if not summed and _sums_to_one(other.operand.node, dims):
                row, where = ONE, same(shape)
        else:
            labels, size = tied(s.system, labels, inner), term.size
            own = [out.index(letters[i]) for i in varying(term.rows) if letters[i] in out]
            where = numbered(shape, {*other.vary, *own})
            row = "of", term.row, content(term.rows), letters, out, whole
        labels = _where_not_zero(s, other, _placed(labels, gone, letters, out, shape), out)
        if row != ONE and len(varying(where)) == sum(n > 1 for n in shape) and _many(shape, inner):
            s.system.zero(labels)
        else:
            found.append(Term(row, term.owner, size, where, labels))
    return found


def _where_not_zero(s: ShiftTraversal, other: _Factor, labels: Tensor, out: Letters) -> Tensor:
    """Nothing shifts where the row is zero."""
    zero = s.reached.zero_at.get(other.operand.node)
    if zero is None:
        return labels
    letters = other.operand.letters
    for dim in reversed(range(zero.ndim)):
        if letters[dim] not in out or not letters[dim]:
            zero = zero.all(dim)
    kept = [out.index(c) for c in letters if c and c in out]
    return torch.where(placed(zero, kept, len(out)), ZERO, labels)


def _many(shape: Sequence[int], inner: Sequence[int]) -> bool:
    return not inner or prod(shape) > MOST_ROWS


def _placed(
    labels: Tensor, gone: Sequence[int], letters: Letters, out: Letters, shape: tuple[int, ...]
) -> Tensor:
    """Labels of a factor as those of the result; along the dimensions that are gone all are equal."""
    labels = first(labels, gone)
    kept = [i for i in range(len(letters)) if i not in gone]
    labels = labels.permute(*kept, *gone).reshape([labels.shape[i] for i in kept])
    order = sorted(range(len(kept)), key=lambda i: out.index(letters[kept[i]]))
    labels = labels.permute(order)
    places = {out.index(letters[kept[i]]): labels.shape[n] for n, i in enumerate(order)}
    return labels.reshape([places.get(i, 1) for i in range(len(shape))]).expand(shape)


def _sums_to_one(node: Node, dims: Sequence[int]) -> bool:
    """Is it what a softmax gives, summed over what that softmax was taken over?"""
    if len(dims) != 1 or not isinstance(node, Node):
        return False
    ndim, dim = value(node).ndim, dims[0]
    name = operation(node)
    if name in ("softmax", "_softmax"):
        return bool(argument(node, "dim") % ndim == dim)
    before = node.args[0] if node.args else None
    if not isinstance(before, Node) or not isinstance(value(before), Tensor):
        return False
    if is_copy(node):
        return _sums_to_one(before, dims)
    if name in ("dropout", "native_dropout"):
        return name == "dropout" and not argument(node, "train") and _sums_to_one(before, dims)
    last = value(before).ndim - 1
    if name in ("view", "reshape", "_unsafe_view", "expand", "unsqueeze") and dim == ndim - 1:
        return bool(value(before).shape[last] == value(node).shape[dim] > 1) and _sums_to_one(before, (last,))
    return False


@_rule("mul", "div")
def _product(s: ShiftTraversal, node: Node) -> Any:
    """Entry by entry: a contraction of nothing."""
    if not all(isinstance(one, Node) for one in node.args[:2]):
        return by_table(s, node)
    if argument(node, "rounding_mode") is not None:
        return None
    return contracted(s, node, entrywise(node), "divided by" if operation(node) == "div" else "")


@_rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _convolution(s: ShiftTraversal, node: Node) -> Shift | None:
    """The row of an output is the patch that it sees; that of a shifted channel the sum of a kernel."""
    x, kernel = node.args[:2]
    shape = tuple(value(node).shape)
    assert isinstance(x, Node)
    assert isinstance(kernel, Node)
    if value(x).ndim != len(shape) or len(shape) < 3:
        return None
    transposed = "transpose" in operation(node)
    weight, bias, groups = s.weight(kernel), argument(node, "bias"), argument(node, "groups", 1)
    found: list[tuple[float, Shift]] = []
    channels = (groups, shape[1] // groups)
    space = tuple(range(2, len(shape)))
    row: Hashable
    if weight is None:
        s.hold(kernel)
    elif groups > 1 and (channels[1] == 1 or prod(shape) > MOST_ROWS):
        s.uses.hold(weight)  # each channel has patches of its own: nothing takes them away
    else:
        view, inner = weight.view, tuple(range(1, len(shape)))
        if groups > 1:
            view, inner = view.unflatten(0, (groups, -1)), tuple(range(2, len(shape) + 1))
        if transposed:  # inputs first
            inner = tuple(axis for axis in range(view.ndim) if axis not in ((0, 2) if groups > 1 else (1,)))
        labels = s.uses.rows(Weight(weight.name, view, weight.frozen), inner)
        labels = first(labels, inner)
        size = prod(view.shape[axis] for axis in inner)
        each = (shape[0], *channels, *shape[2:])
        rows = numbered(each, (0, 1, *(dim + 1 for dim in space))).reshape(shape)
        spelt = repr([argument(node, name) for name in ("stride", "padding", "dilation", "output_padding")])
        row = "patches", s.identity(x, False), operation(node), groups, tuple(value(kernel).shape[2:]), spelt
        placed = labels.reshape(1, -1, *[1] * len(space)).expand(shape)
        found.append((1.0, [Term(row, s.owner(weight), size, rows, placed)]))
    padded = transposed or argument(node, "padding") not in (0, [0], [0, 0], [0, 0, 0], "valid")
    for term in s.read(x):
        labels = tied(s.system, term.labels, (0, *space))
        if term.row != ONE:
            s.system.zero(labels)
            continue
        of_group = labels.reshape(groups, -1)
        packed = s.packed(of_group, (1,), (of_group.shape[1],)).expand(channels).reshape(1, -1)
        where = numbered(shape, (1, *space) if padded else (1,))
        row = "kernel", s.identity(kernel, True), node if padded else operation(node), groups
        placed = packed.reshape(1, -1, *[1] * len(space)).expand(shape)
        found.append((1.0, [Term(row, term.owner, of_group.shape[1], where, placed)]))
    if isinstance(bias, Node):
        one_each = [
            replace(
                term,
                rows=term.rows.reshape(-1, *[1] * len(space)),
                labels=term.labels.reshape(-1, *[1] * len(space)),
            )
            for term in s.read(bias)
        ]
        found.append((1.0, one_each))
    return added(s.system, shape, *found)


@_rule("embedding")
def _embedding(s: ShiftTraversal, node: Node) -> Any:
    """A table: all of its rows alike, and each row by itself."""
    table, ids = node.args[:2]
    if argument(node, "scale_grad_by_freq"):
        return None  # torch's gradient is not the derivative
    shape = tuple(value(node).shape)
    weight, still = s.weight(table), padding_row(node)
    if weight is None:
        found = []
        for term in s.read(table):
            if still is not None or 0 in varying(term.rows):
                s.system.zero(term.labels)
            else:
                rows, labels = (
                    part.narrow(0, 0, 1).reshape(-1)
                    for part in (term.rows, tied(s.system, term.labels, (0,)))
                )
                found.append(replace(term, rows=rows.expand(shape), labels=labels.expand(shape)))
        return found
    ends = met(s.graph, ids)
    if still is None and ends is not None and ends[0] >= 0 and ends[1] - ends[0] + 1 < weight.view.shape[0]:
        weight = replace(weight, view=weight.view[ends[0] : ends[1] + 1])  # the other rows no batch reads
    used = s.uses.looked_up(weight, (0,), () if still is None else (still,))
    plain, single = (labels[0].expand(shape) for labels in (used.plain, used.single))
    row = "place", ids, used.size
    rows = numbered(shape, range(len(shape) - 1))
    return [constant(plain, s.owner(weight)), Term(row, s.owner(weight), used.size, rows, single)]


@_rule("sum")
def _sum(s: ShiftTraversal, node: Node) -> Shift | None:
    """As often as there are entries, a number that another batch may have another one of; or an inner product."""
    product = inner_product_of(node)
    if product is not None:
        return contracted(s, node, product)
    return mixed(s, node, s.read(node.args[0]), set(dims_of(node)), alike=False)
