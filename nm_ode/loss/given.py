"""What a caller gives as a problem."""

from __future__ import annotations

from typing import Any

from torch import nn

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.problem import Problem
from nm_ode.loss.random_problem import RandomProblem


def require_problem(given: Any) -> None:
    """Raises ArgumentError unless it is a Problem."""
    if not isinstance(given, Problem):
        remedy = (
            ": make one with nm_ode.Problem(model, loss_fn, (x, y))" if isinstance(given, nn.Module) else ""
        )
        raise ArgumentError(f"problem must be a nm_ode.Problem; {said(given)} was given{remedy}")


def require_one_loss(given: Any) -> None:
    """Raises ArgumentError unless it is a Problem, and ProblemError if its loss is another at each draw."""
    require_problem(given)
    if isinstance(given, RandomProblem):
        raise ProblemError(
            "a flow needs one loss, and a RandomProblem has another at each draw: make a nm_ode.Problem of the model "
            "in eval mode"
        )
