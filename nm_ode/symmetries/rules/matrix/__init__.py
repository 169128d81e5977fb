"""Matrix symmetries: linear bottlenecks z = W_A x, read as W_B z or q·k, whose coordinates can be mixed by any M.

Forward through the graph every entry of a tensor has a label: which vector it is of, and which coordinate of it
(coordinates.py). A weight that makes z numbers its rows, one that reads z its columns (sides.py); a parameter is
numbered once, whatever its uses, and each use gives conditions: coordinates that are summed over together, or go
together by M or M⁻ᵀ, or may not be mixed (conditions.py, bonds.py). What is linear hands the labels on; anything
that is not known ends what enters it. Coordinates that are always summed over together form a space (spaces.py).
"""

from __future__ import annotations

from torch.fx import Node

from nm_ode.symmetries.findings import Findings, Found
from nm_ode.symmetries.forms import Blocks
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.kinds import SymmetryKind
from nm_ode.symmetries.labels import is_move
from nm_ode.symmetries.operations import operation
from nm_ode.symmetries.rules.matrix import layers, linear, moves, sums
from nm_ode.symmetries.rules.matrix.spaces import parts_of_spaces
from nm_ode.symmetries.rules.matrix.traversal import CoordinateTraversal, Rule

RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), layers.convolved),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), layers.convolved),
    **dict.fromkeys(("mul", "div"), sums.product),
    "embedding": moves.embedded,
    "constant_pad_nd": moves.padded,
    "pad": moves.padded,
    "masked_fill": sums.masked,
    "where": sums.chosen,
    **dict.fromkeys(("index_add", "scatter_add", "scatter_reduce"), sums.scattered),
}
"""Operation → its rule, beside those of contractions, moves and what the table declares to be linear."""


def find(graph: Graph) -> Findings:
    """One symmetry for each pair of weights around bottlenecks: all heads of an attention together."""
    traversal = CoordinateTraversal(graph, _rule)
    traversal.run()
    return Findings(
        tuple(Found("matrix", parts) for parts in parts_of_spaces(traversal.sides, traversal.conditions))
    )


def _rule(node: Node) -> Rule | None:
    if is_move(node):
        return moves.moved
    rule: Rule = RULES.get(operation(node), linear.rule)
    return rule


MATRIX = SymmetryKind(find, Blocks, diagonal="rescale", formula=r"$W_A W_A^\top - W_B^\top W_B$, entries")
