"""Shifts through the operations of the table: their coefficients, and along which dimensions all must shift alike."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from torch.fx import Node

from nm_ode.symmetries.operations import argument, value
from nm_ode.symmetries.operations.declared import Shifts, declared
from nm_ode.symmetries.rules.translation.shifts import (
    MOST_ROWS,
    ONE,
    Shift,
    Term,
    added,
    agree,
    content,
    equal_labels,
    first,
    numbered,
    tied,
    varying,
)
from nm_ode.symmetries.rules.translation.system import is_zero
from nm_ode.symmetries.rules.translation.traversal import ShiftTraversal


def by_table(s: ShiftTraversal, node: Node) -> Any:
    """The shift of the result of a declared operation; None where nothing is declared of it."""
    entry = declared(node)
    shifts = None if entry is None else entry.shifts(node)
    if entry is None or shifts is None:
        return None
    named = {name: argument(node, name) for name in shifts.coefficients}
    for needed in node.all_input_nodes:
        if needed not in named.values():
            s.hold(needed)
    result, over = value(node), set(entry.along(node))
    several = isinstance(result, tuple | list)
    if several:  # values and their indices: the first alone are numbers
        return (_one(s, node, shifts, named, over, tuple(result[0].shape)), *([] for _ in result[1:]))
    return _one(s, node, shifts, named, over, tuple(result.shape))


def _one(
    s: ShiftTraversal,
    node: Node,
    shifts: Shifts,
    named: dict[str, Any],
    over: set[int],
    shape: tuple[int, ...],
) -> Shift:
    if shifts.together:
        return alike(s, [s.read(operand) for operand in named.values()], shape)
    parts: list[tuple[float, Shift]] = []
    for name, coefficient in shifts.coefficients.items():
        shift = s.read(named[name])
        if not over:
            if node in s.graph.sized:  # the coefficient is the batch's
                shift = [replace(term, row=("times", node, name, term.row)) for term in shift]
            parts.append((coefficient, shift))
        elif shifts.linear and coefficient:
            parts.append((coefficient, mixed(s, node, shift, over)))
        else:
            kept = [agree(s.system, term, over) for term in shift]
            if coefficient:
                parts.append((coefficient, [_reshaped(term, over, shape) for term in kept]))
    return added(s.system, shape, *parts)


def _reshaped(term: Term, over: set[int], shape: tuple[int, ...]) -> Term:
    """What is the same along dimensions as the result has it: with these of another size, or without them."""
    if term.labels.ndim == len(shape):
        return term.expand(shape)
    sizes = [n for dim, n in enumerate(term.labels.shape) if dim not in over]
    return replace(term, rows=term.rows.reshape(sizes), labels=term.labels.reshape(sizes)).expand(shape)


def mixed(s: ShiftTraversal, node: Node, shift: Shift, over: set[int], *, alike: bool = True) -> Shift:
    """A linear operation of what is put together along dimensions: then what it adds is the same of the rows.

    Args:
        alike: a shift of all entries alike shifts the result as much; else by other numbers, which the batch says.
    """
    shape = tuple(value(node).shape)
    found = []
    for term in shift:
        own = set(varying(term.rows))
        labels = tied(s.system, term.labels, over)
        if alike and not own & over:
            made = _reshaped(replace(term, rows=first(term.rows, over), labels=labels), over, shape)
        else:
            row = "mixed", node, term.row, content(term.rows)
            rows = numbered(labels.shape, own - over)
            made = _reshaped(replace(term, row=row, rows=rows, labels=labels), over, shape)
            if len(shape) == labels.ndim:
                made = replace(made, rows=numbered(shape, own | over))
        everywhere = made.row != ONE and len(varying(made.rows)) == sum(n > 1 for n in shape)
        if everywhere and prod(shape) > MOST_ROWS:
            s.system.zero(made.labels)
        elif not is_zero(made.labels):
            found.append(made)
    return found


def alike(s: ShiftTraversal, shifts: list[Shift], shape: tuple[int, ...]) -> Shift:
    """All operands must shift alike, as then the result does."""
    parts = [[term.expand(shape) for term in shift] for shift in shifts]
    found = []
    for other in parts[1:]:
        left = list(other)
        for term in parts[0]:
            partner = next((t for t in left if t.kind == term.kind and equal_labels(t.rows, term.rows)), None)
            if partner is None:
                s.system.zero(term.labels)
            else:
                left.remove(partner)
                s.system.equal(term.labels, partner.labels)
                found.append(term)
        for term in left:
            s.system.zero(term.labels)
    return found
