"""Translation symmetries: which entries of the parameters can be shifted so that the loss stays.

Forward through the graph each tensor is given its shift: for every entry a sum of unknowns, each times a row of numbers
that the batch says (1 for a bias; the input of a layer for its weight). An operation says how the shift of its result
follows from those of its inputs: a sum adds them, a mean subtraction or a softmax takes away what its entries share,
which asks that they share it; whatever is unknown asks that nothing shifts. What different rows are multiplied by must
vanish by itself, since nothing is known of rows. What is left free in this linear system are the symmetries: of single
parameters, then of several that compensate one another, with signs.

The rules are sound, not complete: every solution is a symmetry of the loss of every batch.
"""

from __future__ import annotations

from nm_ode.symmetries.findings import Findings
from nm_ode.symmetries.forms import Shift
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.kinds import SymmetryKind
from nm_ode.symmetries.operations import value
from nm_ode.symmetries.rules.translation import contractions, elementwise, normalisations, scattering
from nm_ode.symmetries.rules.translation.agreement import Agreement
from nm_ode.symmetries.rules.translation.declared import by_table
from nm_ode.symmetries.rules.translation.gathering import compensates, gathered
from nm_ode.symmetries.rules.translation.traversal import Rule, ShiftTraversal

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **normalisations.RULES,
    **contractions.RULES,
    **scattering.RULES,
}
"""Operation → its rule; all others go by the table of declared operations."""


def find(graph: Graph) -> Findings:
    """Of each layer what it may do by itself, then what several layers do together."""
    together = _solved(graph, apart=False)
    alone = _solved(graph, apart=True) if compensates(together) else None
    rank = {name: i for i, name in enumerate(graph.parameters.values())}
    return Findings(gathered(alone, together, rank))


def _solved(graph: Graph, *, apart: bool) -> Agreement:
    traversal = ShiftTraversal(graph, RULES, by_table, apart)
    traversal.run()
    shapes = {name: tuple(value(node).shape) for node, name in graph.parameters.items()}
    return Agreement(traversal.system, traversal.uses, shapes)


TRANSLATION = SymmetryKind(find, Shift, formula=r"$\langle\theta_A, 1\rangle$")
