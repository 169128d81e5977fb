"""Constant generators: all entries of a channel shift by one number. Q = ⟨θ, 1⟩."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes import Found, Pair
from nm_ode.symmetries.forms.base import Form, Placed
from nm_ode.symmetries.forms.regions import count_channels, regions_of, sum_to
from nm_ode.symmetries.symmetry import Part


class Shift(Form):
    """ξ = 1 on a charge's entries, 0 elsewhere."""

    degree: ClassVar[Literal[1, 2]] = 1

    def __init__(self, layout: Layout, placed: Sequence[Placed], device: torch.device | str) -> None:
        self._regions = regions_of(layout, placed, device)
        last = max((one.first + one.symmetry.count for one in placed), default=0)
        # ‖ξ‖²: the number of entries that it moves, up or down.
        self._entries = torch.zeros(last, dtype=torch.float64, device=device)
        for region in self._regions:
            for reduction in region.reductions:
                channels = prod(region.view.shape[axis] for axis in reduction.axes)
                number = region.view.size / max(channels, 1)
                each = torch.full((channels,), number, dtype=torch.float64, device=device)
                reduction.send(each, self._entries, power=2)

    @staticmethod
    def count(parts: Sequence[Part]) -> int:
        """One for each channel."""
        return count_channels(parts)

    def add_bracket(
        self, u: Vector, v: Vector, result: Tensor, found: Found | None = None, pair: Pair = ("u", "v")
    ) -> None:
        """0."""

    def add_action(self, vector: Vector, coefficients: Tensor, result: Tensor) -> None:
        """Nothing."""

    def add_charge(self, theta: Vector, charge: Tensor) -> None:
        """⟨θ, 1⟩."""
        self._add_sums(theta, charge)

    def add_constraint(self, grad: Vector, theta: Vector, constraint: Tensor) -> None:
        """⟨g, 1⟩."""
        self._add_sums(grad, constraint)

    def add_squares(self, theta: Vector, squares: Tensor) -> None:
        """⟨1, 1⟩."""
        squares[: len(self._entries)] += self._entries

    def add_shift(self, coefficients: Tensor, result: Tensor) -> None:
        """Σ_c r_c 1_c."""
        for region in self._regions:
            for reduction in region.reductions:
                region.of(result).add_(region.factor(reduction, coefficients))

    def _add_sums(self, u: Vector, result: Tensor) -> None:
        for region in self._regions:
            view = region.of(u)
            for reduction in region.reductions:
                reduction.send(sum_to(view, reduction.axes), result)
