"""The error of a solve that stopped early, and its remedy."""

from __future__ import annotations

import xarray as xr

from bridges import OdeSolution
from nm_ode.errors import NmOdeError


class SolveError(NmOdeError, RuntimeError):
    """The solver gave up or ran into a limit.

    Attributes:
        solution: what was solved up to there, as `solve` would have returned it.
    """

    def __init__(self, message: str, solution: xr.Dataset) -> None:
        super().__init__(message)
        self.solution = solution


_REMEDIES = {
    "non_finite": "the loss overflows on this path: check the data's scale, or tighten rtol",
    "max_steps": "raise max_steps, or loosen rtol",
    "max_rhs": "raise max_rhs, or loosen rtol",
    "max_seconds": "raise max_seconds, or loosen rtol",
    "step_failure": "loosen rtol and atol, or name another engine and method",
}


def failure(solution: OdeSolution, non_finite_remedy: str | None = None) -> str:
    """What stopped the solver, and what to do; `non_finite_remedy` where the flow knows better."""
    remedy = _REMEDIES[solution.status]
    if solution.status == "non_finite" and non_finite_remedy is not None:
        remedy = non_finite_remedy
    return f"{solution.engine} {solution.method} stopped: {solution.message}; {remedy}"
