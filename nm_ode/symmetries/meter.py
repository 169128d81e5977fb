"""Charges, drivers and constraints as sums over slices of the flat vector, where it lies and without copies.

Every symmetry but translation has a generator ξ = Bθ with B symmetric, so one symmetric form serves for all:
[u, v] = ⟨u, Bv⟩. The charge is [θ, θ], the driver [v, v], the gradient's constraint [g, θ] = 0. A translation's
charge is the sum ⟨θ, 1⟩, its constraint ⟨g, 1⟩ = 0.

The meter lives beside the symmetries and not beside the laws of their charges (nm_ode.charges), because a symmetry
is verified by it: the constraints of gradient and Hessian are these sums.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes import Found, Pair, Wanted
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.forms import Placed
from nm_ode.symmetries.forms.base import STATE_PAIRS
from nm_ode.symmetries.kinds import KINDS
from nm_ode.symmetries.symmetry import Symmetry


class ChargeMeter:
    """Sums over the slices of a model's symmetries, one number for each charge, in float64.

    Args:
        layout: of theta, as in `Problem.layout`.
        symmetries: their charges are lined up one after the other, in this order.
        device: of the vectors that will be measured.

    Raises:
        SymmetryError: symmetries of another model.

    Attributes:
        symmetries: as they were given.
        count: number of charges C.
        slices: symmetry name → its charges.
        is_translation: shape (C,), bool: charges that are linear in theta.
    """

    def __init__(
        self, layout: Layout, symmetries: Sequence[Symmetry], device: torch.device | str = "cpu"
    ) -> None:
        self.symmetries = tuple(symmetries)
        _require_same_model(layout, symmetries)
        starts = [0]
        for symmetry in symmetries:
            starts.append(starts[-1] + symmetry.count)
        self.count = starts[-1]
        self.slices = {
            symmetry.name: slice(*ends) for symmetry, ends in zip(symmetries, pairwise(starts), strict=True)
        }
        self.is_translation = torch.zeros(self.count, dtype=torch.bool, device=device)
        placed = [Placed(*one) for one in zip(symmetries, starts, strict=False)]
        for one in placed:
            linear = KINDS[one.symmetry.kind].form.degree == 1
            self.is_translation[one.first : one.first + one.symmetry.count] = linear
        self._forms = [
            form(layout, [one for one in placed if KINDS[one.symmetry.kind].form is form], device)
            for form in dict.fromkeys(kind.form for kind in KINDS.values())
        ]

    def charge(self, theta: Vector) -> Tensor:
        """Q: ⟨θ, 1⟩ of translations, [θ, θ] of all others; shape (C,)."""
        result = self._zeros(theta)
        for form in self._forms:
            form.add_charge(theta, result)
        return result

    def generator_norm(self, theta: Vector) -> Tensor:
        """‖ξ_c(θ)‖, shape (C,)."""
        squares = self._zeros(theta)
        for form in self._forms:
            form.add_squares(theta, squares)
        return squares.sqrt()

    def constraint(self, grad: Vector, theta: Vector) -> Tensor:
        """⟨g, ξ(θ)⟩, which the symmetry makes zero; shape (C,)."""
        result = self._zeros(grad)
        for form in self._forms:
            form.add_constraint(grad, theta, result)
        return result

    def bracket(self, u: Vector, v: Vector, found: Found | None = None, pair: Pair = ("u", "v")) -> Tensor:
        """[u, v], shape (C,); 0 for translations.

        Args:
            found: of a shared pass that made what `wanted_bracket(pair)` names; None: u and v are read here.
        """
        result = self._zeros(u)
        for form in self._forms:
            form.add_bracket(u, v, result, found, pair)
        return result

    def state(self, theta: Vector, grad: Vector, found: Found | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Q, ‖ξ(θ)‖ and ⟨g, ξ(θ)⟩ from one pass over theta; each of shape (C,).

        Args:
            found: of a shared pass that made what `wanted_state` names; None: theta and grad are read here.
        """
        charge, squares, constraint = (self._zeros(theta) for _ in range(3))
        for form in self._forms:
            form.add_state(theta, grad, charge, squares, constraint, found)
        return charge, squares.sqrt(), constraint

    @property
    def sums_brackets(self) -> bool:
        """Does a shared pass make all that `bracket` needs?"""
        return not any(form.reads_brackets for form in self._forms)

    @property
    def wanted_state(self) -> Wanted:
        """What a shared pass over "theta" and "gradient" is to make for `state`."""
        return self._wanted(*STATE_PAIRS)

    def wanted_bracket(self, pair: Pair) -> Wanted:
        """What a shared pass is to make for `bracket` of these two vectors."""
        return self._wanted(pair)

    def _wanted(self, *pairs: Pair) -> Wanted:
        return reduce(operator.or_, (form.wanted(*pairs) for form in self._forms), Wanted())

    def _zeros(self, like: Vector) -> Tensor:
        # In float64: a charge is a difference of sums.
        return torch.zeros(self.count, dtype=torch.float64, device=like.device)

    def apply(self, vector: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_c r_c B_c v, shape (P,): the generators that are linear in theta."""
        result = torch.zeros_like(vector)
        for form in self._forms:
            form.add_action(vector, coefficients, result)
        return result

    def shift(self, like: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_c r_c 1_c over the translations, shape (P,)."""
        result = torch.zeros_like(like)
        for form in self._forms:
            form.add_shift(coefficients, result)
        return result


def _require_same_model(layout: Layout, symmetries: Sequence[Symmetry]) -> None:
    shapes = {slot.name: slot.shape for slot in layout.slots}
    for symmetry in symmetries:
        for name, shape in symmetry.shapes.items():
            if shapes.get(name) != shape:
                raise SymmetryError(
                    f"{symmetry.name}: this model has no trainable parameter {name!r} of shape {shape}; find the "
                    "symmetries of the model that is trained, with the same parameters frozen"
                )
