"""What is measured along a run or a flow, one observer a file; sinks keep the numbers."""

from nm_ode.observers.averages import Averages
from nm_ode.observers.base import OPEN_END, Context, Loop, Observer, View, spread_steps
from nm_ode.observers.cadence import Every, as_save_every, saved_steps
from nm_ode.observers.charges import CHARGES, Charges, charge_coordinates
from nm_ode.observers.constraints import Constraints
from nm_ode.observers.crossings import KinkCrossings
from nm_ode.observers.curvature import Curvature
from nm_ode.observers.density import spectral_density
from nm_ode.observers.held_out import HeldOut
from nm_ode.observers.hessian import Hessian
from nm_ode.observers.losses import Losses
from nm_ode.observers.noise import Noise
from nm_ode.observers.norms import Norms
from nm_ode.observers.recording import Recording, require_observers
from nm_ode.observers.scores import Scores
from nm_ode.observers.sketch import Sketch, sketch_in_place_of_theta
from nm_ode.observers.statistics import Statistics
from nm_ode.observers.trajectory import Trajectory
from nm_ode.registry import Registry

OBSERVERS: Registry[type[Observer]] = Registry(
    "observer",
    {
        "averages": Averages,
        "constraints": Constraints,
        "curvature": Curvature,
        "held_out": HeldOut,
        "hessian": Hessian,
        "kink_crossings": KinkCrossings,
        "noise": Noise,
        "scores": Scores,
        "sketch": Sketch,
        "statistics": Statistics,
    },
)
"""Name in a case file → class; its fields are its options. What every run records needs no name.

Example:
    >>> import nm_ode
    >>> from nm_ode.observers import OBSERVERS
    >>> list(OBSERVERS)[:4]
    ['averages', 'constraints', 'curvature', 'held_out']
    >>> OBSERVERS["curvature"] is nm_ode.Curvature
    True
"""

__all__ = [
    "CHARGES",
    "OBSERVERS",
    "OPEN_END",
    "Averages",
    "Charges",
    "Constraints",
    "Context",
    "Curvature",
    "Every",
    "HeldOut",
    "Hessian",
    "KinkCrossings",
    "Loop",
    "Losses",
    "Noise",
    "Norms",
    "Observer",
    "Recording",
    "Scores",
    "Sketch",
    "Statistics",
    "Trajectory",
    "View",
    "as_save_every",
    "charge_coordinates",
    "require_observers",
    "saved_steps",
    "sketch_in_place_of_theta",
    "spectral_density",
    "spread_steps",
]
