"""Matrix symmetries: linear bottlenecks z = W_A x, read as W_B z or q·k, whose coordinates can be mixed by any M.

Forward through the graph each coordinate (row of a weight that makes z) has a number. What commutes with a mixing of
coordinates hands the numbers on: moves, factors that are numbers, sums, attention weights that mix tokens. A
contraction over the coordinates reads them: by a weight, W_B → W_B M⁻¹, or by another bottleneck, whose coordinates
then go with M⁻ᵀ. Anything else forbids them. Coordinates that are always read together form a space.
"""

from __future__ import annotations

from nm_ode.symmetries.findings import Findings, Found
from nm_ode.symmetries.forms import Blocks
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.kinds import SymmetryKind
from nm_ode.symmetries.rules.matrix.spaces import parts_of_spaces
from nm_ode.symmetries.rules.matrix.traversal import CoordinateTraversal


def find(graph: Graph) -> Findings:
    """One symmetry for each pair of weights around bottlenecks: all heads of an attention together."""
    return Findings(
        tuple(Found("matrix", parts) for parts in parts_of_spaces(CoordinateTraversal(graph).run()))
    )


MATRIX = SymmetryKind(find, Blocks, diagonal="rescale", formula=r"$W_A W_A^\top - W_B^\top W_B$, entries")
