"""What every optimiser offers: its update as a map of one state vector, and what is known of its stability."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from nm_ode.errors import ArgumentError

SERIES_LIMIT = 1.0
"""Largest `curvature_step` · λ_max for which log E = Σ (−1)^{j+1} Δ^j/j converges along a mode of curvature λ.

In each optimiser here the two eigenvalues w of Δ on such a mode have the product x = curvature_step · λ, and where they
are complex |w|² = x; plain descent has w = −x. So the modified flow's series has the radius x = 1, below the stability
limit.
"""


@dataclass(frozen=True)
class StateLayout:
    """Where the parts of an optimiser's state lie in one vector; theta is the first.

    Attributes:
        parts: name and length of each, in order.
    """

    parts: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.parts)

    def split(self, state: Tensor) -> tuple[Tensor, ...]:
        """Views of the parts.

        Raises:
            ValueError: a vector of another length.
        """
        if state.shape != (self.size,):
            told = " + ".join(f"{name} ({size})" for name, size in self.parts)
            raise ArgumentError(
                f"the state has shape {tuple(state.shape)}; it must have ({self.size},): {told}"
            )
        return torch.split(state, [size for _, size in self.parts])


class Optimizer(Protocol):
    """z_{k+1} = Φ(z_k), z being theta and all that the optimiser remembers, in one vector."""

    @property
    def stateful(self) -> bool:
        """Is there more in the state than theta?"""
        ...

    @property
    def lr(self) -> float: ...

    @property
    def time_per_step(self) -> float:
        """Flow time of one step (THEORY.md §1)."""
        ...

    @property
    def curvature_step(self) -> float:
        """The learning rate that curvature sees: the optimiser's behaviour on a mode depends on it times λ."""
        ...

    @property
    def stability_limit(self) -> float:
        """Largest `curvature_step` · λ_max at which a minimum is stable."""
        ...

    @property
    def decay_curvature(self) -> float:
        """What weight decay adds to every eigenvalue of the Hessian."""
        ...

    def state_layout(self, n_theta: int) -> StateLayout:
        """The layout for `n_theta` parameters."""
        ...

    def init(self, theta: Tensor, grad: Tensor) -> Tensor:
        """z_0 of a run that starts at theta, shapes (P,); `grad` is ∇L(theta)."""
        ...

    def increment(self, state: Tensor, grad: Tensor) -> Tensor:
        """Φ(z) − z, with `grad` = ∇L at the state's theta; without the rounding of a difference."""
        ...

    @property
    def multiscale(self) -> bool:
        """Do entries of the state differ in size by orders of magnitude?"""
        ...

    def scale(self, state: Tensor, grad: Tensor) -> Tensor:
        """Typical size of each entry of the state, relative to theta's."""
        ...

    def preconditioner(self, state: Tensor, grad: Tensor) -> Tensor | None:
        """D, shape (P,), of the step to come; None for the identity.

        The optimiser sees the curvature D^{-1/2} H D^{-1/2}.
        """
        ...

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The same optimiser as torch's own object."""
        ...

    def to_torch(self, torch_optimizer: torch.optim.Optimizer, parameter: Tensor, state: Tensor) -> None:
        """Put all of `state` but theta into torch's optimiser of `parameter`."""
        ...

    def from_torch(self, torch_optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
        """The state in torch's optimiser after its first step."""
        ...


def describe(optimizer: Optimizer) -> str:
    """'SGD, lr = 0.1, momentum = 0.9': what is not as by default."""
    told = [type(optimizer).__name__]
    for field in fields(optimizer):  # type: ignore[arg-type]
        value = getattr(optimizer, field.name)
        if field.default is MISSING or value != field.default:
            told.append(f"{field.name.replace('_', ' ')} = {_text(value)}")
    return ", ".join(told)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)).join("()")
    return f"{value:g}"


def require_lr(lr: float) -> None:
    """Raises ValueError unless lr is a positive number."""
    if not (math.isfinite(lr) and lr > 0):
        raise ArgumentError(f"lr must be a positive number; {lr} was given")


def require_fraction(name: str, value: float) -> None:
    """Raises ValueError unless value lies in [0, 1)."""
    if not 0 <= value < 1:
        raise ArgumentError(f"{name} must lie in [0, 1); {value} was given")


def require_not_negative(name: str, value: float) -> None:
    """Raises ValueError unless value is 0 or a positive number."""
    if not (math.isfinite(value) and value >= 0):
        raise ArgumentError(f"{name} must be 0 or positive; {value} was given")
