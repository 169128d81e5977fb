"""Shifts through the operations of the table: their coefficients, and along which dimensions all must shift alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.fx import Node

from nm_ode.symmetries.operations import argument, value
from nm_ode.symmetries.operations.declared import DECLARED, Shifts, declared
from nm_ode.symmetries.rules.translation.contractions import mixed
from nm_ode.symmetries.rules.translation.shifts import Shift, Term, added, agree, equal_labels
from nm_ode.symmetries.rules.translation.traversal import Rule, ShiftTraversal


def _by_table(s: ShiftTraversal, node: Node) -> Any:
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
        return alike(s, list(named.values()), shape)
    parts: list[tuple[float, Shift]] = []
    for name, coefficient in shifts.coefficients.items():
        shift = s.read(named[name])
        if not over:
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


def alike(s: ShiftTraversal, operands: list[Any], shape: tuple[int, ...]) -> Shift:
    """All operands must shift alike, as then the result does."""
    parts = [[term.expand(shape) for term in s.read(operand)] for operand in operands]
    found = []
    first, others = parts[0], parts[1:]
    for other in others:
        left = list(other)
        for term in first:
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


RULES: dict[str, Rule] = dict.fromkeys(DECLARED, _by_table)
"""Of everything in the table; the rules by hand go before it."""
