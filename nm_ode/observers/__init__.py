"""What is measured along a run or a flow, one observer a file; sinks keep the numbers."""

from nm_ode.observers.base import OPEN_END, Context, Loop, Observer, View, spread_steps
from nm_ode.observers.cadence import Every
from nm_ode.observers.charges import CHARGES, Charges, charge_coordinates
from nm_ode.observers.crossings import KinkCrossings
from nm_ode.observers.curvature import Curvature
from nm_ode.observers.losses import Losses
from nm_ode.observers.norms import Norms
from nm_ode.observers.recording import Recording, require_observers
from nm_ode.observers.scores import Scores
from nm_ode.observers.statistics import Statistics
from nm_ode.observers.trajectory import Trajectory
from nm_ode.registry import Registry

OBSERVERS: Registry[type[Observer]] = Registry(
    "observer",
    {
        "curvature": Curvature,
        "kink_crossings": KinkCrossings,
        "statistics": Statistics,
    },
)
"""Name in a case file → class; its fields are its options. What every run records needs no name."""

__all__ = [
    "CHARGES",
    "OBSERVERS",
    "OPEN_END",
    "Charges",
    "Context",
    "Curvature",
    "Every",
    "KinkCrossings",
    "Loop",
    "Losses",
    "Norms",
    "Observer",
    "Recording",
    "Scores",
    "Statistics",
    "Trajectory",
    "View",
    "charge_coordinates",
    "require_observers",
    "spread_steps",
]
