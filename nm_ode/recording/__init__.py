"""What is recorded of an optimiser's steps."""

from nm_ode.recording.charges import CHARGES, ChargeRecord, charge_coordinates
from nm_ode.recording.curvature import CurvatureRecord, Sharpness, sharpness, spread_steps
from nm_ode.recording.kinks import CrossingRecord

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
