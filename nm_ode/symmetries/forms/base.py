"""What a form of generators offers: its sums over theta's slices, added to one vector of all charges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes import Found, Pair, Wanted
from nm_ode.symmetries.symmetry import Part, Symmetry

STATE_PAIRS: tuple[Pair, Pair] = (("theta", "theta"), ("gradient", "theta"))
"""What a charge and its constraint are made of."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A symmetry and the number of its first charge among all."""

    symmetry: Symmetry
    first: int


class Form(ABC):
    """The generators of some symmetries: ξ = Bθ with B symmetric, or constant.

    With [u, v] = ⟨u, Bv⟩ the charge is [θ, θ] and the gradient's constraint [g, θ]. Each `add_…` adds what it
    measures into its last arguments, vectors of shape (C,) with one number for each charge of the meter; u, v, theta
    and grad have shape (P,), and are read where they lie.

    Args:
        layout: of theta.
        placed: the symmetries of this form.
        device: of the vectors that will be measured.
    """

    degree: ClassVar[Literal[1, 2]] = 2
    """Of the charge as a polynomial in theta."""

    @abstractmethod
    def __init__(self, layout: Layout, placed: Sequence[Placed], device: torch.device | str) -> None: ...

    @staticmethod
    @abstractmethod
    def count(parts: Sequence[Part]) -> int:
        """Number of charges of a symmetry that is made of these parts."""

    @property
    def reads_brackets(self) -> bool:
        """Does `add_bracket` read u and v, whatever a shared pass has made?"""
        return False

    def wanted(self, *pairs: Pair) -> Wanted:
        """What a shared pass is to make of these pairs for this form; nothing for forms that read by themselves."""
        return Wanted()

    @abstractmethod
    def add_bracket(
        self, u: Vector, v: Vector, result: Tensor, found: Found | None = None, pair: Pair = ("u", "v")
    ) -> None:
        """[u, v]; 0 for generators that are constant.

        Args:
            found: of a shared pass that made what `wanted(pair)` names; None: u and v are read here.
        """

    @abstractmethod
    def add_squares(self, theta: Vector, squares: Tensor) -> None:
        """‖ξ(θ)‖²."""

    @abstractmethod
    def add_action(self, vector: Vector, coefficients: Tensor, result: Tensor) -> None:
        """Σ_c r_c B_c v into `result`, shape (P,); nothing for generators that are constant."""

    def add_shift(self, coefficients: Tensor, result: Tensor) -> None:  # noqa: B027 (nothing for most forms)
        """Σ_c r_c ξ_c of generators that are constant into `result`, shape (P,)."""

    def add_charge(self, theta: Vector, charge: Tensor) -> None:
        """Q."""
        self.add_bracket(theta, theta, charge)

    def add_constraint(self, grad: Vector, theta: Vector, constraint: Tensor) -> None:
        """⟨g, ξ(θ)⟩."""
        self.add_bracket(grad, theta, constraint)

    def add_state(
        self,
        theta: Vector,
        grad: Vector,
        charge: Tensor,
        squares: Tensor,
        constraint: Tensor,
        found: Found | None = None,
    ) -> None:
        """Q, ‖ξ(θ)‖² and ⟨g, ξ(θ)⟩; forms that can do so read theta once, or not at all.

        Args:
            found: of a shared pass that made what `wanted(*STATE_PAIRS)` names; None: theta and grad are read here.
        """
        self.add_charge(theta, charge)
        self.add_squares(theta, squares)
        self.add_constraint(grad, theta, constraint)
