"""What is recorded of an optimiser's steps."""

from nm_ode.recording.charges import CHARGES, ChargeRecord, charge_coordinates
from nm_ode.recording.curvature import CurvatureRecord, Sharpness, sharpness, spread_steps
from nm_ode.recording.kinks import CrossingRecord
from nm_ode.recording.noise import GradientNoise, gradient_noise

__all__ = [
    "CHARGES",
    "ChargeRecord",
    "CrossingRecord",
    "CurvatureRecord",
    "GradientNoise",
    "Sharpness",
    "charge_coordinates",
    "gradient_noise",
    "sharpness",
    "spread_steps",
]
