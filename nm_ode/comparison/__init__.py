"""How far a flow is from the run that it describes, at which order in the learning rate, and why."""

from nm_ode.comparison.alignment import AlignmentError
from nm_ode.comparison.average_errors import predicts_variance
from nm_ode.comparison.averages import NoAverageError, RunAverage, has_average, run_average
from nm_ode.comparison.convergence import USED, convergence, diagnoses
from nm_ode.comparison.correlation import Correlation, correlation
from nm_ode.comparison.defects import defects, holds_from, share_at_start
from nm_ode.comparison.diagnosis import Cause, Diagnosis, Evidence, LeftOut, Outcome, diagnose
from nm_ode.comparison.distribution import Difference, compare_ensembles
from nm_ode.comparison.edge import CentralRow, Edge, EdgeRow, edge
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
from nm_ode.comparison.windows import THREE_STEPS, Window, gaussian_window

__all__ = [
    "THREE_STEPS",
    "USED",
    "AlignmentError",
    "Cause",
    "CentralRow",
    "Correlation",
    "Diagnosis",
    "Difference",
    "Edge",
    "EdgeRow",
    "EngineDistance",
    "ErrorPastStability",
    "Evidence",
    "Farther",
    "Jump",
    "LawAccuracy",
    "LeftOut",
    "NoAverageError",
    "NotForeseen",
    "ObservedOrder",
    "Outcome",
    "Row",
    "RunAverage",
    "Stability",
    "SymmetryRow",
    "Window",
    "compare",
    "compare_ensembles",
    "convergence",
    "correlation",
    "defects",
    "diagnose",
    "diagnoses",
    "edge",
    "farther_flows",
    "gaussian_window",
    "has_average",
    "higher_order_is_farther",
    "holds_from",
    "jump",
    "law_infos",
    "observed_order",
    "predicts_variance",
    "run_average",
    "share_at_start",
    "stability",
    "summary",
    "symmetry_rows",
    "symmetry_summary",
    "with_jump",
]
