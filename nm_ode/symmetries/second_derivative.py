"""Operations of which torch has no second derivative."""

from __future__ import annotations

from nm_ode.loss import NoSecondDerivative
from nm_ode.loss.no_hessian import without_derivative


def missing_derivative(error: Exception) -> str:
    """The operation that an error is about; empty if it is about something else."""
    if isinstance(error, NoSecondDerivative):
        return str(error)
    if isinstance(error, RuntimeError | NotImplementedError):
        found = without_derivative(error)
        return "a function of the model's own" if found == "" else found or ""
    return ""
