"""What symmetries conserve: the charges' laws of motion, and their solution."""

from nm_ode.charges.driven import Driven, driven
from nm_ode.charges.errors import LawError
from nm_ode.charges.law import Law
from nm_ode.charges.laws import LAWS, laws_for, require_described
from nm_ode.charges.predict import predict_charges
from nm_ode.charges.solve import solve_charges

__all__ = [
    "LAWS",
    "Driven",
    "Law",
    "LawError",
    "driven",
    "laws_for",
    "predict_charges",
    "require_described",
    "solve_charges",
]
