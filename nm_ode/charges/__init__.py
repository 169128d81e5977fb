"""What symmetries conserve: the charges' laws of motion, and their solution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nm_ode.charges.driven import Driven, driven
from nm_ode.charges.errors import LawError
from nm_ode.charges.law import Law
from nm_ode.charges.laws import LAWS, laws_for, require_described
from nm_ode.charges.predict import predict_charges
from nm_ode.charges.regimes import Regime, regimes

if TYPE_CHECKING:
    from nm_ode.charges.solve import solve_charges

__all__ = [
    "LAWS",
    "Driven",
    "Law",
    "LawError",
    "Regime",
    "driven",
    "laws_for",
    "predict_charges",
    "regimes",
    "require_described",
    "solve_charges",
]


def __getattr__(name: str) -> Any:
    """`solve_charges` at its first use: it lies above the observers, which sum what a law needs."""
    if name == "solve_charges":
        from nm_ode.charges.solve import solve_charges

        return solve_charges
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
