"""What every flow offers to the solver."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from nm_ode.errors import NmOdeError
from nm_ode.loss import Problem
from nm_ode.optimizers import SGD, Optimizer


class FlowError(NmOdeError, ValueError):
    """This flow does not exist for this optimiser or order."""


class Flow(Protocol):
    """A vector field on a state that contains theta, in flow time (THEORY.md §1)."""

    @property
    def problem(self) -> Problem: ...

    @property
    def name(self) -> str:
        """Short and unique among a case's flows; the group's name in the tree."""
        ...

    @property
    def title(self) -> str:
        """For a reader."""
        ...

    @property
    def expected_order(self) -> int:
        """Order in lr of the global error at a fixed time, for smooth losses and beyond an optimiser's transients."""
        ...

    @property
    def depends_on_lr(self) -> bool:
        """Is the field that of one learning rate?"""
        ...

    @property
    def gradients_per_rhs(self) -> int: ...

    @property
    def hvps_per_rhs(self) -> int: ...

    @property
    def third_derivatives_per_rhs(self) -> int: ...

    def rhs(self, t: float, state: Tensor) -> Tensor:
        """d state / dt, same shape, dtype and device as the problem's theta0."""
        ...

    def state_from(self, theta: Tensor, memory: Tensor | None = None) -> Tensor:
        """The state of a run that starts at theta.

        Args:
            memory: the optimiser's whole state of a run that is under way; None for one that starts at rest.
        """
        ...

    def theta_in(self, state: Tensor) -> Tensor:
        """The parameters in a state."""
        ...

    def scale(self, state: Tensor) -> Tensor | None:
        """Typical size of each entry of the state, relative to theta's; None if all are alike."""
        ...


def require_sgd(optimizer: Optimizer, flow: str) -> SGD:
    """The optimiser as SGD.

    Raises:
        FlowError: it is another.
    """
    if not isinstance(optimizer, SGD):
        raise FlowError(
            f"{flow} with {type(optimizer).__name__}: it is that of SGD alone; take the modified flow in "
            "iterated-map form, which every optimiser has"
        )
    return optimizer


def require_plain(optimizer: Optimizer, flow: str) -> SGD:
    """The optimiser as plain descent.

    Raises:
        FlowError: an optimiser whose state is more than theta.
    """
    optimizer = require_sgd(optimizer, flow)
    if optimizer.momentum:
        raise FlowError(
            f"{flow} with momentum = {optimizer.momentum}: it is that of plain descent alone; set momentum = 0, or "
            "take the modified flow in iterated-map form"
        )
    return optimizer


def regularised_gradient(problem: Problem, optimizer: SGD | None, theta: Tensor) -> Tensor:
    """∇L + λθ, a tensor of the caller's own."""
    gradient = problem.grad(theta)
    if optimizer is not None and optimizer.weight_decay:
        gradient.add_(theta, alpha=optimizer.weight_decay)
    return gradient


def regularised_hvp(problem: Problem, optimizer: SGD, theta: Tensor, v: Tensor) -> Tensor:
    """(H + λ) v, a tensor of the caller's own."""
    product = problem.hvp(theta, v)
    return product.add_(v, alpha=optimizer.weight_decay) if optimizer.weight_decay else product
