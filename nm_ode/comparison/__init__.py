"""How far a flow is from the run that it describes, at which order in the learning rate, and why."""

from nm_ode.comparison.alignment import AlignmentError
from nm_ode.comparison.convergence import USED, convergence, diagnoses
from nm_ode.comparison.defects import defects, holds_from, share_at_start
from nm_ode.comparison.diagnosis import Cause, Diagnosis, Evidence, LeftOut, Outcome, diagnose
from nm_ode.comparison.distribution import Difference, compare_ensembles
from nm_ode.comparison.errors import compare
from nm_ode.comparison.foreseen import Jump, NotForeseen, jump, with_jump
from nm_ode.comparison.law_summary import (
    LawAccuracy,
    SymmetryRow,
    law_infos,
    symmetry_rows,
    symmetry_summary,
)
from nm_ode.comparison.order import ObservedOrder, observed_order
from nm_ode.comparison.stability import (
    ErrorPastStability,
    Farther,
    Stability,
    farther_flows,
    higher_order_is_farther,
    stability,
)
from nm_ode.comparison.summary import EngineDistance, Row, summary

__all__ = [
    "USED",
    "AlignmentError",
    "Cause",
    "Diagnosis",
    "Difference",
    "EngineDistance",
    "ErrorPastStability",
    "Evidence",
    "Farther",
    "Jump",
    "LawAccuracy",
    "LeftOut",
    "NotForeseen",
    "ObservedOrder",
    "Outcome",
    "Row",
    "Stability",
    "SymmetryRow",
    "compare",
    "compare_ensembles",
    "convergence",
    "defects",
    "diagnose",
    "diagnoses",
    "farther_flows",
    "higher_order_is_farther",
    "holds_from",
    "jump",
    "law_infos",
    "observed_order",
    "share_at_start",
    "stability",
    "summary",
    "symmetry_rows",
    "symmetry_summary",
    "with_jump",
]
