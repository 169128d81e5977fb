"""What every flow offers to the solver."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from nm_ode.problem import Problem


class FlowError(ValueError):
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

    def rhs(self, t: float, state: Tensor) -> Tensor:
        """d state / dt, same shape, dtype and device as the problem's theta0."""
        ...

    def state_from(self, theta: Tensor) -> Tensor:
        """The state of a run that starts at theta."""
        ...

    def theta_in(self, state: Tensor) -> Tensor:
        """The parameters in a state."""
        ...
