"""The solver's own error (docs/theory.md §5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bridges import FINEST_RTOL, OdeProblem, OdeSolution
from nm_ode.solving.errors import failure
from nm_ode.solving.field import Array, Field
from nm_ode.solving.keeping import KeptSolve
from nm_ode.solving.plan import Plan

_TIGHTER = 10.0


@dataclass(frozen=True, eq=False)
class Check:
    """How far a solution is from a finer one.

    Attributes:
        errors: shape (times,), NaN where the finer solve did not come.
        how: in words.
        status, rhs_evaluations: of the finer solve; None where the method has an estimate of its own.
    """

    errors: Array
    how: str
    status: str | None = None
    rhs_evaluations: int | None = None


def check(
    field: Field,
    plan: Plan,
    kept: KeptSolve,
    ode: OdeProblem,
    solution: OdeSolution,
    thetas: Array,
    atol: float,
) -> Check:
    """Solve once more, ten times tighter; methods of a fixed step have their own step halving instead.

    Args:
        kept: by which the solve goes on where it was.
        thetas: shape (times, P), of the solution.
        atol: the tolerance that a user reads, before any scaling by entries.
    """
    if solution.error_estimates is not None:
        return Check(solution.error_estimates, "difference to the same method at twice the step")
    errors = np.full(len(thetas), np.nan)

    def distance(index: int, t: float, y: Array) -> None:
        errors[index] = np.linalg.norm(field.theta(y).numpy() - thetas[index])

    tighter = replace(ode, rtol=max(ode.rtol / _TIGHTER, FINEST_RTOL), atol=ode.atol / _TIGHTER)
    checked = kept.solve(tighter, plan.choice.method, distance, errors)
    how = f"difference to the same method at rtol {tighter.rtol:g}, atol {atol / _TIGHTER:g}"
    if checked.status != "success":
        how += f" (stopped: {failure(checked)})"
    return Check(errors, how, checked.status, checked.statistics.rhs_evaluations)
