"""Losses without a Hessian: what is said where torch has no second derivative, or a wrong one."""

from __future__ import annotations

from nm_ode.loss.guards import ProblemError


class NoSecondDerivative(ProblemError):  # noqa: N818 (what is missing, not what is broken)
    """The loss has no Hessian, or none that can be computed: an operation has no second derivative, or a wrong one."""
