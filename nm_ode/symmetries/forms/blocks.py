"""Generators that mix the rows of blocks: row i becomes Σ_j S_ij row j, S symmetric. Q = W Wᵀ, its distinct entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes import Found, Pair
from nm_ode.symmetries.forms.base import Form, Placed
from nm_ode.symmetries.symmetry import Part, View


@dataclass(frozen=True, eq=False)
class _Block:
    """A view (blocks, d, rest) of one parameter, and where the charges of its symmetry begin."""

    view: View
    start: int
    first: int
    weight: float

    def of(self, vector: Vector) -> Tensor:
        return self.view.of(vector, self.start)

    def send(self, product: Tensor, result: Tensor) -> None:
        """Add the distinct entries of the symmetric part."""
        i, j = _upper(product)
        upper = (0.5 * (product[:, i, j] + product[:, j, i])).reshape(-1)
        result[self.first : self.first + upper.numel()] += self.weight * upper

    def send_squares(self, product: Tensor, squares: Tensor) -> None:
        """Add ‖ξ‖² of each charge, the product being W Wᵀ."""
        i, j = _upper(product)
        diagonal = product.diagonal(dim1=-2, dim2=-1)
        both = torch.where(i == j, diagonal[:, i], 0.25 * (diagonal[:, i] + diagonal[:, j])).reshape(-1)
        squares[self.first : self.first + both.numel()] += both


@dataclass(frozen=True, eq=False)
class _Crossing:
    """Where rows and columns of one parameter are mixed, as in A → M A M⁻¹: ‖S A + A S‖² is not the sum of two squares.

    Attributes:
        block: the square that both have, shape (blocks, d, d), and where the charges begin; of weight 2 · w · w'.
    """

    block: _Block

    def send_squares(self, theta: Vector, squares: Tensor) -> None:
        """Add 2 ⟨S A, A S⟩ of each charge."""
        a = self.block.of(theta)
        i, j = _upper(a)
        diagonal = a.diagonal(dim1=-2, dim2=-1)
        products = a[:, i, j] * a[:, j, i] + diagonal[:, i] * diagonal[:, j]
        both = (0.5 * products).reshape(-1)
        squares[self.block.first : self.block.first + both.numel()] += self.block.weight * both


def square_of(rows: View, columns: View) -> View | None:
    """Of a parameter whose rows and columns are mixed alike the square (blocks, d, d) that is mixed on both sides.

    None where what both views have in common is no such square.
    """
    blocks, d, _ = rows.shape
    if columns.shape[:2] != (blocks, d):
        return None
    size = max(rows.extent.stop, columns.extent.stop)
    row_of, column_of = (torch.full((size,), -1) for _ in range(2))
    for view, number in ((rows, row_of), (columns, column_of)):
        view.of(number).copy_(torch.arange(blocks * d).reshape(blocks, d, 1))
    both = (row_of >= 0) & (column_of >= 0) & (row_of // d == column_of // d)
    corner = (both & (row_of == 0) & (column_of == 0)).nonzero()
    if len(corner) != 1 or int(both.sum()) != blocks * d * d:
        return None
    (block, row, _), (other_block, column, _) = rows.strides, columns.strides
    strides = (block + other_block, row, column)
    square = View(rows.parameter, (blocks, d, d), strides, int(corner))
    number = torch.arange(blocks * d).reshape(blocks, d)
    fits = square.extent.stop <= size and bool(
        (square.of(row_of) == number[:, :, None]).all() and (square.of(column_of) == number[:, None, :]).all()
    )
    return square if fits else None


class Blocks(Form):
    """ξ = weight · S W on views W of shape (blocks, d, rest).

    There is a charge for each block and each i ≤ j, with S = (e_i e_jᵀ + e_j e_iᵀ)/2.
    """

    def __init__(self, layout: Layout, placed: Sequence[Placed], device: torch.device | str) -> None:
        self._blocks = [
            _Block(part.view, layout[part.parameter].start, one.first, part.weight)
            for one in placed
            for part in one.symmetry.parts
        ]
        self._crossings = [crossing for one in placed for crossing in _crossings(layout, one)]

    @staticmethod
    def count(parts: Sequence[Part]) -> int:
        """d(d+1)/2 for each block."""
        blocks, d, _ = parts[0].view.shape
        return blocks * d * (d + 1) // 2

    @property
    def reads_brackets(self) -> bool:
        """Products of matrices are none of a pass."""
        return bool(self._blocks)

    def add_bracket(
        self, u: Vector, v: Vector, result: Tensor, found: Found | None = None, pair: Pair = ("u", "v")
    ) -> None:
        """The symmetric part of U Vᵀ."""
        for block in self._blocks:
            block.send(block.of(u) @ block.of(v).mT, result)

    def add_squares(self, theta: Vector, squares: Tensor) -> None:
        """‖S W‖²."""
        for block in self._blocks:
            rows = block.of(theta)
            block.send_squares(rows @ rows.mT, squares)
        for crossing in self._crossings:
            crossing.send_squares(theta, squares)

    def add_state(
        self,
        theta: Vector,
        grad: Vector,
        charge: Tensor,
        squares: Tensor,
        constraint: Tensor,
        found: Found | None = None,
    ) -> None:
        """All three, with W Wᵀ made once."""
        for block in self._blocks:
            rows, of_grad = block.of(theta), block.of(grad)
            product = rows @ rows.mT
            block.send(product, charge)
            block.send(of_grad @ rows.mT, constraint)
            block.send_squares(product, squares)
        for crossing in self._crossings:
            crossing.send_squares(theta, squares)

    def add_action(self, vector: Vector, coefficients: Tensor, result: Tensor) -> None:
        """(Σ_c r_c S_c) V."""
        for block in self._blocks:
            blocks, d, _ = block.view.shape
            number = d * (d + 1) // 2
            upper = coefficients[block.first : block.first + blocks * number].reshape(blocks, number)
            matrix = vector.new_zeros((blocks, d, d))
            i, j = _upper(matrix)
            matrix[:, i, j] = 0.5 * upper
            matrix = matrix + matrix.mT
            into = block.of(result)
            into += block.weight * (matrix @ block.of(vector))


def _crossings(layout: Layout, placed: Placed) -> Iterator[_Crossing]:
    for one, other in combinations(placed.symmetry.parts, 2):
        if one.parameter == other.parameter and one.view.strides[:2] != other.view.strides[:2]:
            square = square_of(one.view, other.view)
            if square is None:  # they have no entry in common: the rules find no other symmetry
                continue
            start, weight = layout[one.parameter].start, 2 * one.weight * other.weight
            yield _Crossing(_Block(square, start, placed.first, weight))


def _upper(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the upper triangle of square matrices, diagonal included."""
    d = matrices.shape[-1]
    i, j = torch.triu_indices(d, d, device=matrices.device)
    return i, j
