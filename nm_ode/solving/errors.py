"""The error of a solve that stopped early, and its remedy."""

from __future__ import annotations

import xarray as xr

from bridges import OdeSolution
from nm_ode.errors import NmOdeError


class SolveError(NmOdeError, RuntimeError):
    """The solver gave up or ran into a limit.

    Attributes:
        solution: what was solved up to there, as `solve` would have returned it.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> try:
        ...     nm_ode.solve(nm_ode.GradientFlow(problem), t=[0.0, 0.1, 9.0], max_rhs=40)
        ... except nm_ode.SolveError as error:
        ...     print(nm_ode.solve_info(error.solution).status, dict(error.solution.theta.sizes))
        max_rhs {'time': 2, 'param': 11}
    """

    def __init__(self, message: str, solution: xr.Dataset) -> None:
        super().__init__(message)
        self.solution = solution


_REMEDIES = {
    "non_finite": "the loss overflows on this path: check the data's scale, or {finer}",
    "max_steps": "raise max_steps, or {coarser}",
    "max_rhs": "raise max_rhs, or {coarser}",
    "max_seconds": "raise max_seconds, or {coarser}",
    "step_failure": "{looser}, or name another engine and method",
}
_ADAPTIVE = {"finer": "tighten rtol", "coarser": "loosen rtol", "looser": "loosen rtol and atol"}
_FIXED_STEP = {"finer": "take a smaller step", "coarser": "take a larger step", "looser": "take another step"}


def failure(solution: OdeSolution, non_finite_remedy: str | None = None, *, fixed_step: bool = False) -> str:
    """What stopped the solver, and what to do.

    Args:
        non_finite_remedy: where the flow knows better.
        fixed_step: was the method given a step? Then tolerances change nothing.
    """
    remedy = _REMEDIES[solution.status].format_map(_FIXED_STEP if fixed_step else _ADAPTIVE)
    if solution.status == "non_finite" and non_finite_remedy is not None:
        remedy = non_finite_remedy
    return f"{solution.engine} {solution.method} stopped: {solution.message}; {remedy}"
