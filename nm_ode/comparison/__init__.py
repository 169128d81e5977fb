"""How far a flow is from the run that it describes."""

from nm_ode.comparison.alignment import AlignmentError
from nm_ode.comparison.convergence import convergence
from nm_ode.comparison.defects import defects, share_at_start
from nm_ode.comparison.distribution import Difference, compare_ensembles
from nm_ode.comparison.errors import compare
from nm_ode.comparison.law_summary import SymmetryRow, law_titles, symmetry_summary
from nm_ode.comparison.order import ObservedOrder, observed_order
from nm_ode.comparison.stability import Stability, stability
from nm_ode.comparison.summary import Row, summary

__all__ = [
    "AlignmentError",
    "Difference",
    "ObservedOrder",
    "Row",
    "Stability",
    "SymmetryRow",
    "compare",
    "compare_ensembles",
    "convergence",
    "defects",
    "law_titles",
    "observed_order",
    "share_at_start",
    "stability",
    "summary",
    "symmetry_summary",
]
