"""Shifts through entries that are picked or added up at places which an index says."""

from __future__ import annotations

from math import prod

from torch.fx import Node

from nm_ode.symmetries.operations import argument, operation, registering, value
from nm_ode.symmetries.operations.declared import is_number
from nm_ode.symmetries.rules.translation.shifts import (
    MOST_ROWS,
    Shift,
    Term,
    added,
    agree,
    content,
    numbered,
    tied,
    varying,
)
from nm_ode.symmetries.rules.translation.traversal import Rule, ShiftTraversal

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("gather")
def _picked(s: ShiftTraversal, node: Node) -> Shift | None:
    """Of the entries along a dimension the index says which: they shift alike, and so does what is picked."""
    x, shape = node.args[0], tuple(value(node).shape)
    of = tuple(value(x).shape)
    if not shape or len(of) != len(shape):
        return None
    s.hold(argument(node, "index"))
    # Where fewer are picked along another dimension than there are, how many may be the batch's.
    over = {argument(node, "dim") % len(shape)} | {dim for dim, n in enumerate(shape) if n != of[dim]}
    return [agree(s.system, term, over).expand(shape) for term in s.read(x)]


@_rule("index_add", "scatter_add")
def _added_up(s: ShiftTraversal, node: Node) -> Shift | None:
    """Entries along a dimension add up in places along it: of one unknown, with rows that add up alike."""
    base, index = argument(node, "self"), argument(node, "index")
    source, alpha = argument(node, "source", argument(node, "src")), argument(node, "alpha", 1)
    shape, of = tuple(value(node).shape), tuple(value(source).shape)
    if not shape or len(of) != len(shape) or not is_number(alpha) or node in s.graph.sized:
        return None
    dim, places = argument(node, "dim") % len(shape), value(index)
    if any(n != of[d] for d, n in enumerate(shape) if d != dim):
        return None
    s.hold(index)
    apart = {dim}
    if (
        operation(node) == "scatter_add"
    ):  # each entry has a place of its own, but where the index was expanded
        if tuple(places.shape) != of:
            return None
        apart |= {d for d, n in enumerate(of) if n > 1 and places.stride(d) != 0}
    found = []
    for term in s.read(source):
        labels = tied(s.system, term.labels, {dim}).expand(shape)
        along = apart | set(varying(term.rows))
        if prod(shape[d] for d in along) > MOST_ROWS and all(
            d in along for d, n in enumerate(shape) if n > 1
        ):
            s.system.zero(labels)
            continue
        row = "added up", node, term.row, content(term.rows)
        found.append(Term(row, term.owner, term.size, numbered(shape, along), labels))
    return added(s.system, shape, (1.0, s.read(base)), (float(alpha), found))
