"""Diagonal generators: all entries of a channel are multiplied by one number. Q = Σ weight ‖θ_channel‖²."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes import Found, Pair, Pass, Sum, Wanted
from nm_ode.symmetries.forms.base import STATE_PAIRS, Form, Placed
from nm_ode.symmetries.forms.regions import Reduction, Region, Target, count_channels, regions_of
from nm_ode.symmetries.symmetry import Part

_TWO: Pair = ("u", "v")


@dataclass(frozen=True, eq=False)
class _Crossing:
    """Entries that two channels of one charge have in common, as the diagonal of D W D⁻¹: (a + b)² = a² + b² + 2ab."""

    region: Region
    entries: tuple[Tensor, ...]
    charges: Tensor
    factor: float


class Diagonal(Form):
    """ξ = weight · θ on a charge's entries, 0 elsewhere."""

    def __init__(self, layout: Layout, placed: Sequence[Placed], device: torch.device | str) -> None:
        self._regions = regions_of(layout, placed, device)
        self._crossings = [crossing for region in self._regions for crossing in _crossings(region)]
        self._of_two, self._of_state = (Pass(layout, self.wanted(*pairs)) for pairs in ([_TWO], STATE_PAIRS))

    @staticmethod
    def count(parts: Sequence[Part]) -> int:
        """One for each channel."""
        return count_channels(parts)

    def wanted(self, *pairs: Pair) -> Wanted:
        """Of each region and pair the sums by channel."""
        return Wanted(
            sums=frozenset(
                Sum(pair, region.view, reduction.axes)
                for pair in pairs
                for region in self._regions
                for reduction in region.reductions
            )
        )

    def add_bracket(
        self, u: Vector, v: Vector, result: Tensor, found: Found | None = None, pair: Pair = _TWO
    ) -> None:
        """Σ weight ⟨u_channel, v_channel⟩."""
        self._send(self._of_two({"u": u, "v": v}) if found is None else found, pair, result)

    def add_squares(self, theta: Vector, squares: Tensor) -> None:
        """Σ weight² ‖θ_channel‖²."""
        self._send(self._of_two({"u": theta, "v": theta}), _TWO, squares, power=2)
        self._add_crossings(theta, squares)

    def add_state(
        self,
        theta: Vector,
        grad: Vector,
        charge: Tensor,
        squares: Tensor,
        constraint: Tensor,
        found: Found | None = None,
    ) -> None:
        """All three from one pass over theta."""
        if found is None:
            found = self._of_state({"theta": theta, "gradient": grad})
        of_theta, of_both = STATE_PAIRS
        self._send(found, of_theta, charge)
        self._send(found, of_theta, squares, power=2)
        self._add_crossings(theta, squares)
        self._send(found, of_both, constraint)

    def add_action(self, vector: Vector, coefficients: Tensor, result: Tensor) -> None:
        """Σ_c r_c weight · v."""
        for region in self._regions:
            for reduction in region.reductions:
                region.of(result).add_(region.factor(reduction, coefficients) * region.of(vector))

    def _add_crossings(self, theta: Vector, squares: Tensor) -> None:
        for crossing in self._crossings:
            both = crossing.region.of(theta)[crossing.entries].to(squares.dtype).square()
            squares.index_add_(0, crossing.charges, both, alpha=crossing.factor)

    def _send(self, found: Found, pair: Pair, result: Tensor, power: int = 1) -> None:
        for region in self._regions:
            for reduction in region.reductions:
                reduction.send(found.sums[Sum(pair, region.view, reduction.axes)], result, power)


def _crossings(region: Region) -> Iterator[_Crossing]:
    for one, other in combinations(region.reductions, 2):
        for a in one.targets:
            for b in other.targets:
                if not bool(torch.isin(a.charges, b.charges).any()):
                    continue
                of_a, of_b = _charges(region, one, a), _charges(region, other, b)
                both = (of_a == of_b) & (of_a >= 0)
                entries = both.expand(region.view.shape).nonzero(as_tuple=True)
                if len(entries[0]):
                    charges = of_a.expand(region.view.shape)[entries]
                    yield _Crossing(region, entries, charges, 2 * a.weight * b.weight)


def _charges(region: Region, reduction: Reduction, target: Target) -> Tensor:
    """The charge of each channel, −1 for none, broadcast over the region."""
    shape = region.view.shape
    charges = target.charges.new_full((prod(shape[axis] for axis in reduction.axes),), -1)
    charges[target.channels] = target.charges
    return charges.reshape([n if dim in reduction.axes else 1 for dim, n in enumerate(shape)])
