"""Shifts through masks, paddings and running sums."""

from __future__ import annotations

from dataclasses import replace
from math import isinf
from typing import Any

import torch
from torch.fx import Node

from nm_ode.symmetries.ended import proviso
from nm_ode.symmetries.labels import compressed
from nm_ode.symmetries.operations import argument, operation, registering, value
from nm_ode.symmetries.places import place_of
from nm_ode.symmetries.rules.translation.declared import alike, by_table, mixed
from nm_ode.symmetries.rules.translation.shifts import Shift, agree, lean
from nm_ode.symmetries.rules.translation.traversal import Rule, ShiftTraversal

RULES: dict[str, Rule] = {}
_rule = registering(RULES)

_BEYOND = (
    1e30  # a number of this size is the same number when a shift is added, and its exponential is 0 or ∞
)
_MASKED = -1e8  # under a softmax this is as good


@_rule("masked_fill")
def _masked_fill(s: ShiftTraversal, node: Node) -> Shift | None:
    x, mask, filled = node.args[:3]
    if s.depends(mask) or s.depends(filled):
        return None
    return _filled(s, node, x, filled)


@_rule("where")
def _where(s: ShiftTraversal, node: Node) -> Any:
    mask, *operands = node.args[:3]
    if len(operands) < 2:
        return None
    for x, other in (operands, operands[::-1]):
        if s.depends(x) and not s.depends(other) and _is_beyond(s, node, other):
            s.hold(mask)
            return _filled(s, node, x, other)
    return by_table(s, node)


def _filled(s: ShiftTraversal, node: Node, x: Any, filled: Any) -> Shift | None:
    """A shift of what is masked does not matter where −∞ is put in its place: the same added to −∞ is −∞."""
    if not _is_beyond(s, node, filled):
        return None
    shape, found = tuple(value(node).shape), s.read(x)
    number = _number(s, filled)
    if found and number is not None and not isinf(number):
        proviso(
            f"{place_of(node)}: the mask of {number:.3g} counts as infinite, which is true of floating-point numbers "
            "alone (a shift of it is lost in rounding, its exponential is 0): translations of what is masked hold in "
            "them, not in real numbers"
        )
    return [term.expand(shape) for term in found]


def _is_beyond(s: ShiftTraversal, node: Node, filled: Any) -> bool:
    number = _number(s, filled)
    if number is None:
        return False
    if isinf(number) or abs(number) >= _BEYOND:
        return True
    readers = list(node.users)
    return number <= _MASKED and all(operation(reader) in ("softmax", "_softmax") for reader in readers)


def _number(s: ShiftTraversal, given: Any) -> float | None:
    """A number among the arguments, or the one that a constant tensor is full of."""
    if isinstance(given, float | int):
        return float(given)
    if not isinstance(given, Node):
        return None
    name = operation(given) if given.op == "call_function" else ""
    if name in ("full", "full_like", "new_full", "scalar_tensor"):
        number = argument(given, "s" if name == "scalar_tensor" else "fill_value")
        return float(number) if isinstance(number, float | int) else None
    if name in ("lift_fresh_copy", "clone", "alias", "_to_copy", "detach"):
        return _number(s, given.args[0])
    return None


@_rule("constant_pad_nd", "pad")
def _padded(s: ShiftTraversal, node: Node) -> Shift | None:
    """What is put around does not shift."""
    x, pad = node.args[0], argument(node, "pad")
    if not all(isinstance(n, int) for n in pad):
        return None
    ndim = len(value(node).shape)
    touched = {ndim - 1 - i // 2 for i, n in enumerate(pad) if n}
    if argument(node, "mode", "constant") != "constant":  # copies of what is inside
        return mixed(s, node, s.read(x), touched)
    if node in s.graph.sized:  # how many is the batch's, and none in the example may be some in another
        return mixed(s, node, s.read(x), set(range(ndim - len(pad) // 2, ndim)), alike=False)
    found = []
    for term in s.read(x):
        rows, labels = (
            _with_zeros(part, pad, touched, tuple(value(node).shape)) for part in (term.rows, term.labels)
        )
        found.append(replace(term, rows=rows, labels=labels))
    return found


def _with_zeros(labels: torch.Tensor, pad: Any, touched: set[int], shape: tuple[int, ...]) -> torch.Tensor:
    small = compressed(labels, tuple(touched))
    return lean(torch.constant_pad_nd(small, list(pad), 0).expand(shape))


@_rule("cumsum")
def _running_sum(s: ShiftTraversal, node: Node) -> Shift | None:
    """The more of them are added, the larger the shift."""
    x = node.args[0]
    over = {argument(node, "dim") % max(value(node).ndim, 1)}
    return mixed(s, node, s.read(x), over, alike=False)


@_rule("cdist", "_cdist_forward")
def _distances(s: ShiftTraversal, node: Node) -> Shift:
    """Of each row of one to each of the other: none changes where all rows of both shift alike."""
    rows = [
        [agree(s.system, term, (term.labels.ndim - 2,)) for term in s.read(points)]
        for points in node.args[:2]
    ]
    shapes = [[*value(points).shape[:-2], 1, value(points).shape[-1]] for points in node.args[:2]]
    alike(s, rows, tuple(torch.broadcast_shapes(*shapes)))
    return []
