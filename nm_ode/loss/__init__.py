"""L(theta) and its derivatives."""

from nm_ode.loss.guards import ProblemError
from nm_ode.loss.identity import problem_identity
from nm_ode.loss.no_hessian import NoSecondDerivative
from nm_ode.loss.objective import LossFunction, Objective
from nm_ode.loss.own import WithLoss, own_loss
from nm_ode.loss.problem import Problem
from nm_ode.loss.random_problem import RandomProblem
from nm_ode.loss.vectorised import VectorisedWarning

__all__ = [
    "LossFunction",
    "NoSecondDerivative",
    "Objective",
    "Problem",
    "ProblemError",
    "RandomProblem",
    "VectorisedWarning",
    "WithLoss",
    "own_loss",
    "problem_identity",
]
