"""Scale and rescale symmetries: which entries of the parameters can be multiplied so that the loss stays.

Every tensor of the graph carries, for each entry, the logarithm of the factor by which it is multiplied: a variable.
How the variables of a result follow from those of what enters is what `operations` say of it: the degree of
homogeneity multiplies them, a product adds them, a sum wants them equal, a normalisation wants them equal over what it
normalises and hands on none, and anything unknown wants them zero. A weight's entry W[o, i] between x[i] and y[o]
takes the factor y[o] − x[i]. The data and the loss have factor zero; a tensor that is made of zeros has any.

A parameter moves once, whatever its uses: entry by entry all uses give the same factor (`uses`), which for a weight
that is used again, transposed or in part separates into equations between axes. What is left free in this linear
system are the symmetries, each with the parameters it moves; a channel is a variable, so they come per channel.

    variables     the system: equalities, sums, and what they leave free
    traversal     forward through the graph
    by_table      the rule of all that `operations.declared` has
    contractions, normalisations, elementwise, pooling, scattering    what has a form of its own there, or none
    uses, boxes   one parameter's uses, which are views of it
    gathering     from free variables to symmetries

The rules are sound, not complete: every solution is a symmetry of the loss of every batch.
"""

from __future__ import annotations

from nm_ode.symmetries.findings import Findings
from nm_ode.symmetries.forms import Diagonal
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.kinds import SymmetryKind
from nm_ode.symmetries.rules.scaling import contractions, elementwise, normalisations, pooling, scattering
from nm_ode.symmetries.rules.scaling.by_table import by_table
from nm_ode.symmetries.rules.scaling.gathering import gathered
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **contractions.RULES,
    **normalisations.RULES,
    **pooling.RULES,
    **scattering.RULES,
}
"""Operation → its rule; all others go by the table of declared operations."""


def find(graph: Graph) -> Findings:
    """All scale and rescale symmetries: those that a normalisation absorbs, and those with a minus side."""
    traversal = ScalingTraversal(graph, RULES, by_table)
    return gathered(traversal, traversal.run())


SCALE = SymmetryKind(find, Diagonal, formula=r"$\|\theta_A\|^2$")
RESCALE = SymmetryKind(find, Diagonal, formula=r"$\|\theta_A\|^2 - \|\theta_B\|^2$")
