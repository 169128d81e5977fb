"""Charges, drivers and constraints as sums over slices of the flat vector, where it lies and without copies.

Every symmetry but translation has a generator ξ = Bθ with B symmetric, so one symmetric form serves for all:
[u, v] = ⟨u, Bv⟩. The charge is [θ, θ], the driver [v, v], the gradient's constraint [g, θ] = 0. A translation's
charge is the sum ⟨θ, 1⟩, its constraint ⟨g, 1⟩ = 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from nm_ode.parameters import Layout
from nm_ode.symmetries.graph import SymmetryError
from nm_ode.symmetries.kinds import Part, Symmetry, View

_CHUNK = 1 << 19  # entries of a product that are held at a time: few enough for a processor's cache


@dataclass(frozen=True, eq=False)
class _Target:
    """Where the sums of some channels go."""

    channels: Tensor
    charges: Tensor
    weight: float


@dataclass(frozen=True, eq=False)
class _Reduction:
    """Sums over all axes but these, one for each channel."""

    axes: tuple[int, ...]
    targets: tuple[_Target, ...]


@dataclass(frozen=True, eq=False)
class _Region:
    """Part of theta that is read at once, whatever the number of symmetries that it belongs to."""

    view: View
    start: int
    reductions: tuple[_Reduction, ...]

    def of(self, vector: Tensor) -> Tensor:
        return self.view.of(vector, self.start)

    def factor(self, reduction: _Reduction, coefficients: Tensor) -> Tensor:
        """Σ weight · r at each channel, broadcast over the view."""
        shape = self.view.shape
        factor = coefficients.new_zeros(prod(shape[axis] for axis in reduction.axes))
        for target in reduction.targets:
            factor[target.channels] += target.weight * coefficients[target.charges]
        return factor.reshape([n if dim in reduction.axes else 1 for dim, n in enumerate(shape)])


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
        device: of the vectors that will be measured.

    Raises:
        SymmetryError: symmetries of another model.

    Attributes:
        count: number of charges C.
        slices: symmetry name → its charges.
        is_translation: shape (C,), bool.
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
        shifts: _Grouped = defaultdict(lambda: defaultdict(list))
        squares: _Grouped = defaultdict(lambda: defaultdict(list))
        self._matrices: list[_Matrix] = []
        for symmetry, first in zip(symmetries, starts, strict=False):
            self.is_translation[first : first + symmetry.count] = symmetry.kind == "translation"
            grouped = shifts if symmetry.kind == "translation" else squares
            for part in symmetry.parts:
                if symmetry.kind == "matrix":
                    start = layout[part.parameter].start
                    self._matrices.append(_Matrix(part.view, start, first, part.weight))
                else:
                    grouped[part.view][part.axes].append(_target(part, first, device))
        self._shifts, self._squares = _regions(shifts, layout), _regions(squares, layout)
        # ‖ξ‖² of a translation: the number of entries that it moves.
        self._entries_shifted = self._add_shifts(
            torch.ones(layout.size, dtype=torch.float64, device=device),
            torch.zeros(self.count, dtype=torch.float64, device=device),
        )
        self._scratch = torch.empty(0)

    def charge(self, theta: Tensor) -> Tensor:
        """Q: ⟨θ, 1⟩ of translations, [θ, θ] of all others; shape (C,)."""
        return self._add_shifts(theta, self.bracket(theta, theta))

    def generator_norm(self, theta: Tensor) -> Tensor:
        """‖ξ_c(θ)‖, shape (C,)."""
        return self.state(theta, theta)[1]

    def constraint(self, grad: Tensor, theta: Tensor) -> Tensor:
        """⟨g, ξ(θ)⟩, which the symmetry makes zero; shape (C,)."""
        return self._add_shifts(grad, self.bracket(grad, theta))

    def bracket(self, u: Tensor, v: Tensor) -> Tensor:
        """[u, v], shape (C,); 0 for translations."""
        result = u.new_zeros(self.count)
        for region in self._squares:
            (sums,) = self._products(region, ((u, v),))
            _send(region, sums, result)
        for block in self._matrices:
            a, b = block.view.of(u, block.start), block.view.of(v, block.start)
            _send_matrix(block, a @ b.mT, result)
        return result

    def state(self, theta: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, ‖ξ(θ)‖ and ⟨g, ξ(θ)⟩ from one pass over theta; each of shape (C,)."""
        charge, constraint = theta.new_zeros(self.count), theta.new_zeros(self.count)
        squares = self._entries_shifted.to(theta.dtype, copy=True)
        for region in self._squares:
            of_theta, of_both = self._products(region, ((theta, theta), (grad, theta)))
            _send(region, of_theta, charge)
            _send(region, of_theta, squares, power=2)
            _send(region, of_both, constraint)
        for block in self._matrices:
            rows, of_grad = block.view.of(theta, block.start), block.view.of(grad, block.start)
            product = rows @ rows.mT
            _send_matrix(block, product, charge)
            _send_matrix(block, of_grad @ rows.mT, constraint)
            i, j = _upper(product)
            diagonal = product.diagonal(dim1=-2, dim2=-1)
            both = torch.where(i == j, diagonal[:, i], 0.25 * (diagonal[:, i] + diagonal[:, j])).reshape(-1)
            squares[block.first : block.first + both.numel()] += both
        return self._add_shifts(theta, charge), squares.sqrt(), self._add_shifts(grad, constraint)

    def apply(self, vector: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_c r_c B_c v, shape (P,): the generators that are linear in theta."""
        result = torch.zeros_like(vector)
        for region in self._squares:
            for reduction in region.reductions:
                region.of(result).add_(region.factor(reduction, coefficients) * region.of(vector))
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
        for region in self._shifts:
            for reduction in region.reductions:
                region.of(result).add_(region.factor(reduction, coefficients))
        return result

    def _add_shifts(self, u: Tensor, result: Tensor) -> Tensor:
        for region in self._shifts:
            view = region.of(u)
            _send(region, [_sum_to(view, reduction.axes) for reduction in region.reductions], result)
        return result

    def _products(self, region: _Region, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[list[Tensor]]:
        """Of each pair the products' sums by each of the region's reductions.

        A product is made some rows at a time, which stay in the cache for all reductions: what costs is memory's
        bandwidth, and so each vector is read once. Columns are summed over rows first, which is a vector operation.
        """
        views = [(_at_least_1d(region.of(u)), _at_least_1d(region.of(v))) for u, v in pairs]
        n, *rest = views[0][0].shape
        at_a_time = max(1, min(n, _CHUNK // max(1, prod(rest))))
        scratch = self._room(at_a_time * prod(rest), views[0][0])
        pieces: list[list[list[Tensor]]] = [[[] for _ in region.reductions] for _ in pairs]
        for start in range(0, n, at_a_time):
            rows = slice(start, min(start + at_a_time, n))
            made = scratch[: (rows.stop - start) * prod(rest)].view(rows.stop - start, *rest)
            for mine, (a, b) in zip(pieces, views, strict=True):
                torch.mul(a[rows], b[rows], out=made)
                for parts, reduction in zip(mine, region.reductions, strict=True):
                    if 0 in reduction.axes:
                        parts.append(_sum_to(made, reduction.axes).clone())
                    elif parts:
                        parts[0] += made.sum(0)
                    else:
                        parts.append(made.sum(0))
        return [
            [
                torch.cat(parts)
                if 0 in reduction.axes
                else _sum_to(parts[0], tuple(axis - 1 for axis in reduction.axes))
                for parts, reduction in zip(mine, region.reductions, strict=True)
            ]
            for mine in pieces
        ]

    def _room(self, size: int, like: Tensor) -> Tensor:
        if self._scratch.numel() < size or (self._scratch.dtype, self._scratch.device) != (
            like.dtype,
            like.device,
        ):
            self._scratch = like.new_empty(size)
        return self._scratch


def _require_same_model(layout: Layout, symmetries: Sequence[Symmetry]) -> None:
    shapes = {slot.name: slot.shape for slot in layout.slots}
    for symmetry in symmetries:
        for name, shape in symmetry.shapes.items():
            if shapes.get(name) != shape:
                raise SymmetryError(
                    f"{symmetry.name}: this model has no trainable parameter {name!r} of shape {shape}; find the "
                    "symmetries of the model that is trained, with the same parameters frozen"
                )


_Grouped = defaultdict[View, defaultdict[tuple[int, ...], list[_Target]]]


def _regions(grouped: _Grouped, layout: Layout) -> tuple[_Region, ...]:
    return tuple(
        _Region(
            view,
            layout[view.parameter].start,
            tuple(_Reduction(axes, tuple(targets)) for axes, targets in by_axes.items()),
        )
        for view, by_axes in grouped.items()
    )


def _target(part: Part, first: int, device: torch.device | str) -> _Target:
    channels = (part.index >= 0).nonzero()[:, 0]
    return _Target(channels.to(device), (part.index[channels] + first).to(device), part.weight)


def _at_least_1d(view: Tensor) -> Tensor:
    return view if view.ndim else view.reshape(1)


def _sum_to(view: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sums over all axes but these, flattened."""
    if 0 not in axes and view.ndim > 1:
        view, axes = view.sum(0), tuple(axis - 1 for axis in axes)
    others = [dim for dim in range(view.ndim) if dim not in axes]
    return (view.sum(others) if others else view).reshape(-1)


def _send(region: _Region, sums: Sequence[Tensor], result: Tensor, power: int = 1) -> None:
    for reduction, found in zip(region.reductions, sums, strict=True):
        for target in reduction.targets:
            result.index_add_(0, target.charges, found[target.channels], alpha=target.weight**power)


def _send_matrix(block: _Matrix, product: Tensor, result: Tensor) -> None:
    """The symmetric part's distinct entries."""
    i, j = _upper(product)
    upper = (0.5 * (product[:, i, j] + product[:, j, i])).reshape(-1)
    result[block.first : block.first + upper.numel()] += block.weight * upper


def _upper(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the upper triangle of square matrices, diagonal included."""
    d = matrices.shape[-1]
    i, j = torch.triu_indices(d, d, device=matrices.device)
    return i, j
