"""Charges, drivers and constraints as sums over slices of the flat vector, where it lies and without copies.

Every symmetry but translation has a generator ξ = Bθ with B symmetric, so one symmetric form serves for all:
[u, v] = ⟨u, Bv⟩. The charge is [θ, θ], the driver [v, v], the gradient's constraint [g, θ] = 0. A translation's
charge is the sum ⟨θ, 1⟩, its constraint ⟨g, 1⟩ = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from nm_ode.layout import Layout
from nm_ode.symmetries.kinds import Part, Symmetry, View


@dataclass(frozen=True, eq=False)
class _Sum:
    """Channel sums of one view, and where they go: (index of channels, index of charges, weight)."""

    view: View
    axes: tuple[int, ...]
    start: int
    targets: tuple[tuple[Tensor, Tensor, float], ...]


@dataclass(frozen=True, eq=False)
class _Matrix:
    view: View
    start: int
    first: int
    weight: float


class ChargeMeter:
    """Sums over the slices of a model's symmetries, one number for each charge.

    Args:
        layout: of theta, as in `Problem.layout`.
        symmetries: families whose charges are lined up one after the other, in this order.

    Attributes:
        count: number of charges C.
        slices: symmetry name → its charges.
        is_translation: shape (C,), bool.
    """

    def __init__(self, layout: Layout, symmetries: Sequence[Symmetry]) -> None:
        self.symmetries = tuple(symmetries)
        starts = [0]
        for symmetry in symmetries:
            starts.append(starts[-1] + symmetry.count)
        self.count = starts[-1]
        self.slices = {
            symmetry.name: slice(*ends) for symmetry, ends in zip(symmetries, pairwise(starts), strict=True)
        }
        self.is_translation = torch.zeros(self.count, dtype=torch.bool)
        diagonal: dict[tuple[bool, View, tuple[int, ...]], list[tuple[Tensor, Tensor, float]]] = {}
        self._matrices: list[_Matrix] = []
        for symmetry, first in zip(symmetries, starts, strict=False):
            linear = symmetry.kind == "translation"
            self.is_translation[first : first + symmetry.count] = linear
            for part in symmetry.parts:
                if symmetry.kind == "matrix":
                    start = layout[part.parameter].start
                    self._matrices.append(_Matrix(part.view, start, first, part.weight))
                else:
                    key = (linear, part.view, part.axes)
                    diagonal.setdefault(key, []).append(_target(part, first))
        self._linear, self._quadratic = (
            [
                _Sum(view, axes, layout[view.parameter].start, tuple(targets))
                for (is_linear, view, axes), targets in diagonal.items()
                if is_linear is wanted
            ]
            for wanted in (True, False)
        )

    def charge(self, theta: Tensor) -> Tensor:
        """Q: ⟨θ, 1⟩ of translations, [θ, θ] of all others; shape (C,)."""
        return self.charge_and_norm(theta)[0]

    def charge_and_norm(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Q and ‖ξ(θ)‖ from one pass over theta; both of shape (C,)."""
        charge, squares = theta.new_zeros(self.count), theta.new_zeros(self.count)
        for entry in self._quadratic:
            sums = _channel_sums(entry, theta, theta)
            _send(entry, sums, charge)
            _send(entry, sums, squares, power=2)
        for entry in self._linear:
            sizes = theta.new_full((_channels(entry.view, entry.axes),), _per_channel(entry.view, entry.axes))
            _send(entry, sizes, squares, power=2)
        for block in self._matrices:
            rows = block.view.of(theta, block.start)
            product = rows @ rows.mT
            i, j = _upper(product)
            upper = product[:, i, j].reshape(-1)
            diagonal = product.diagonal(dim1=-2, dim2=-1)
            both = torch.where(i == j, diagonal[:, i], 0.25 * (diagonal[:, i] + diagonal[:, j])).reshape(-1)
            where = slice(block.first, block.first + upper.numel())
            charge[where] += block.weight * upper
            squares[where] += both
        return self._add_linear(theta, charge), squares.sqrt()

    def constraint(self, grad: Tensor, theta: Tensor) -> Tensor:
        """⟨g, ξ(θ)⟩, which the symmetry makes zero; shape (C,)."""
        return self._add_linear(grad, self.bracket(grad, theta))

    def bracket(self, u: Tensor, v: Tensor) -> Tensor:
        """[u, v], shape (C,); 0 for translations."""
        result = u.new_zeros(self.count)
        for entry in self._quadratic:
            _send(entry, _channel_sums(entry, u, v), result)
        for block in self._matrices:
            a, b = block.view.of(u, block.start), block.view.of(v, block.start)
            product = a @ b.mT
            i, j = _upper(product)
            upper = product[:, i, j] if u is v else 0.5 * (product[:, i, j] + product[:, j, i])
            result[block.first : block.first + upper.numel()] += block.weight * upper.reshape(-1)
        return result

    def generator_norm(self, theta: Tensor) -> Tensor:
        """‖ξ_c(θ)‖, shape (C,)."""
        return self.charge_and_norm(theta)[1]

    def apply(self, vector: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_c r_c B_c v, shape (P,): the generators that are linear in theta."""
        result = torch.zeros_like(vector)
        for entry in self._quadratic:
            entry.view.of(result, entry.start).add_(
                _factors(entry, coefficients) * entry.view.of(vector, entry.start)
            )
        for block in self._matrices:
            blocks, d, _ = block.view.shape
            number = d * (d + 1) // 2
            upper = coefficients[block.first : block.first + blocks * number].reshape(blocks, number)
            matrix = vector.new_zeros(blocks, d, d)
            i, j = _upper(matrix)
            matrix[:, i, j] = 0.5 * upper
            matrix = matrix + matrix.mT
            into = block.view.of(result, block.start)
            into += block.weight * (matrix @ block.view.of(vector, block.start))
        return result

    def shift(self, like: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_c r_c 1_c over the translations, shape (P,)."""
        result = torch.zeros_like(like)
        for entry in self._linear:
            entry.view.of(result, entry.start).add_(_factors(entry, coefficients))
        return result

    def _add_linear(self, u: Tensor, result: Tensor) -> Tensor:
        for entry in self._linear:
            view = entry.view.of(u, entry.start)
            others = [dim for dim in range(view.ndim) if dim not in entry.axes]
            _send(entry, (view.sum(others) if others else view).reshape(-1), result)
        return result


def _upper(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the upper triangle of square matrices, diagonal included."""
    d = matrices.shape[-1]
    i, j = torch.triu_indices(d, d, device=matrices.device)
    return i, j


def _target(part: Part, first: int) -> tuple[Tensor, Tensor, float]:
    channels = (part.index >= 0).nonzero()[:, 0]
    return channels, part.index[channels] + first, part.weight


def _channels(view: View, axes: tuple[int, ...]) -> int:
    count = 1
    for axis in axes:
        count *= view.shape[axis]
    return count


def _per_channel(view: View, axes: tuple[int, ...]) -> int:
    return view.size // max(_channels(view, axes), 1)


def _channel_sums(entry: _Sum, u: Tensor, v: Tensor) -> Tensor:
    a, b = entry.view.of(u, entry.start), entry.view.of(v, entry.start)
    others = [dim for dim in range(a.ndim) if dim not in entry.axes]
    if not others:
        return (a * b).reshape(-1)
    # The norm of one makes no product in memory.
    sums: Tensor = torch.linalg.vector_norm(a, dim=others).square() if u is v else (a * b).sum(others)
    return sums.reshape(-1)


def _factors(entry: _Sum, coefficients: Tensor) -> Tensor:
    """Σ weight · r at each channel, broadcast over the view."""
    factor = coefficients.new_zeros(_channels(entry.view, entry.axes))
    for channels, charges, weight in entry.targets:
        factor[channels] += weight * coefficients[charges]
    return factor.reshape([n if dim in entry.axes else 1 for dim, n in enumerate(entry.view.shape)])


def _send(entry: _Sum, sums: Tensor, result: Tensor, power: int = 1) -> None:
    for channels, charges, weight in entry.targets:
        result.index_add_(0, charges, sums[channels], alpha=weight**power)
