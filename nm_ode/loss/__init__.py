"""L(theta) and its derivatives."""

from nm_ode.loss.problem import LossFunction, Problem, ProblemError

__all__ = ["LossFunction", "Problem", "ProblemError"]
