"""Rows of an embedding that no gradient reaches: `padding_idx`."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch.fx import Node

from nm_ode.symmetries.graph import MODEL, Graph
from nm_ode.symmetries.operations import argument, operation, value


def padding_row(node: Node) -> int | None:
    """The row of an embedding's table of which torch gives no gradient."""
    row = argument(node, "padding_idx")
    table = value(node.args[0])
    return None if row is None or row < 0 else int(row) % len(table)


def padding_rows(graph: Graph) -> dict[str, tuple[int, ...]]:
    """For each table that a symmetry may scale the rows that are zero and stay it."""
    found: dict[str, list[int]] = defaultdict(list)
    for node in graph.operations:
        if operation(node) == "embedding" and stays_zero(graph, node):
            found[graph.parameters[node.args[0]]].append(padding_row(node) or 0)  # type: ignore[index]
    return {name: tuple(rows) for name, rows in found.items()}


def stays_zero(graph: Graph, node: Node) -> bool:
    """Is an embedding's padding row zero, and nothing else there to move it?

    Then it may count among what is scaled: zero times a factor is zero.
    """
    table, row = node.args[0], padding_row(node)
    if row is None or table not in graph.parameters or not isinstance(table, Node):
        return False
    users = [user for user in table.users if user in graph.operations]
    alone = all(operation(user) == "embedding" and padding_row(user) == row for user in users)
    return alone and not bool(torch.any(graph.values[MODEL + graph.parameters[table]][row]))
