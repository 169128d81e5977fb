"""What is recorded of an optimiser's steps."""

from nm_ode.observers.charges import CHARGES, ChargeRecord, charge_coordinates
from nm_ode.observers.crossings import CrossingRecord
from nm_ode.observers.curvature import CurvatureRecord, Sharpness, sharpness, spread_steps

__all__ = [
    "CHARGES",
    "ChargeRecord",
    "CrossingRecord",
    "CurvatureRecord",
    "Sharpness",
    "charge_coordinates",
    "sharpness",
    "spread_steps",
]
