"""What is recorded of an optimiser's steps."""

from nm_ode.recording.charges import CHARGES, ChargeRecord, charge_coordinates

__all__ = ["CHARGES", "ChargeRecord", "charge_coordinates"]
