"""Scale and rescale symmetries: which entries of the parameters can be multiplied so that the loss stays.

Every tensor of the graph carries, for each entry, the logarithm of the factor by which it is multiplied: a variable.
An operation says how the variables of its result follow from those of its inputs: a ReLU hands them on, a product
adds them, a sum wants them equal, a normalisation wants them equal over what it normalises and hands on none, and
anything unknown wants them zero. A weight's entry W[o, i] between x[i] and y[o] takes the factor y[o] − x[i]. The
data and the loss have factor zero. What is left free in this linear system are the symmetries, each with the
parameters it moves; a channel is a variable, so they come per channel.

The rules are sound, not complete: every solution is a symmetry of the loss of every batch.
"""

from __future__ import annotations

from nm_ode.symmetries.findings import Findings
from nm_ode.symmetries.forms import Diagonal
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.kinds import SymmetryKind
from nm_ode.symmetries.rules.scaling import contractions, einsum, elementwise, normalisations, reductions
from nm_ode.symmetries.rules.scaling.gathering import gathered
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **reductions.RULES,
    **contractions.RULES,
    **einsum.RULES,
    **normalisations.RULES,
}
"""Operation → its rule."""


def find(graph: Graph) -> Findings:
    """All scale and rescale symmetries: those that a normalisation absorbs, and those with a minus side."""
    traversal = ScalingTraversal(graph, RULES)
    return gathered(traversal, traversal.run())


SCALE = SymmetryKind(find, Diagonal, formula=r"$\|\theta_A\|^2$")
RESCALE = SymmetryKind(find, Diagonal, formula=r"$\|\theta_A\|^2 - \|\theta_B\|^2$")
