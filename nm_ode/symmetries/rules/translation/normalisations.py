"""Shifts through normalisations, which take away what the entries of one mean share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.fx import Node

from nm_ode.symmetries.operations import value
from nm_ode.symmetries.operations.normalisations import NORMALISATIONS, Normalisation, normalisation_of
from nm_ode.symmetries.rules.translation.shifts import (
    ONE,
    Shift,
    Term,
    added,
    agree,
    forbid,
    numbered,
    varying,
)
from nm_ode.symmetries.rules.translation.traversal import Rule, ShiftTraversal


def _normalisation(s: ShiftTraversal, node: Node) -> Any:
    """The input by the mean that is subtracted; β like any other summand; γ not at all."""
    found = normalisation_of(node)
    if found is None:
        return None
    known = (found.x, found.weight, found.bias)
    for needed in node.all_input_nodes:
        if needed not in known:
            s.hold(needed)
    shape = tuple(value(found.x).shape)
    passed: Shift = []
    if not found.own:
        passed = _by_fixed_numbers(s, node, found, shape)
    elif found.centred and found.over:
        for term in s.read(found.x):
            apart = replace(term, rows=found.apart(term.rows), labels=found.apart(term.labels))
            agree(s.system, apart, found.over)
    else:
        forbid(s.system, s.read(found.x))
    s.hold(found.weight)
    bias = [
        replace(
            term,
            rows=found.placed(term.rows, len(shape)).expand(shape),
            labels=found.placed(term.labels, len(shape)).expand(shape),
        )
        for term in s.read(found.bias)
    ]
    result = added(s.system, shape, (1.0, passed), (1.0, bias))
    several = value(node)
    return (result, *([] for _ in several[1:])) if isinstance(several, tuple | list) else result


def _by_fixed_numbers(s: ShiftTraversal, node: Node, found: Normalisation, shape: tuple[int, ...]) -> Shift:
    """γ/σ times the shift, whatever numbers these are: one for each channel."""
    passed = []
    for term in s.read(found.x):
        rows = numbered(shape, {*found.affine, *varying(term.rows)})
        if term.row != ONE and len(varying(term.rows)) > 1:
            s.system.zero(term.labels)
            continue
        row = "fixed", node, term.row
        passed.append(Term(row, term.owner, term.size, rows, term.labels))
    return passed


RULES: dict[str, Rule] = dict.fromkeys(NORMALISATIONS, _normalisation)
