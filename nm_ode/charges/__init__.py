"""What symmetries conserve: the charges' laws of motion, and their solution."""

from nm_ode.charges.laws import LawError, predict_charges
from nm_ode.charges.solve import solve_charges

__all__ = ["LawError", "predict_charges", "solve_charges"]
