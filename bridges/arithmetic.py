"""What the methods of engine "torch" ask to be done with their vectors. Each is read once, a piece at a time."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from bridges.problem import Array
from bridges.rk_tables import Coefficients
from bridges.vectors import Vector

Sum: TypeAlias = Any
"""Coefficients of the rows of a matrix, as `Arithmetic.sum` made them."""


class Arithmetic(Protocol):
    """Vectors of one size on one device: of float64, or in the dtype of the field."""

    @property
    def rounding(self) -> float:
        """Of the dtype of the field."""
        ...

    def state(self) -> Vector:
        """A vector of float64; its entries are anything."""
        ...

    def of_field(self) -> Vector:
        """A vector in the dtype of the field."""
        ...

    def rows(self, count: int) -> Vector:
        """So many of them, as a matrix."""
        ...

    def sum(self, coefficients: Coefficients) -> Sum:
        """Row → coefficient."""
        ...

    def table(self, coefficients: Array) -> list[Sum]:
        """A sum of all rows for each row of coefficients, shape (sums, rows)."""
        ...

    def add(self, out: Vector, base: Vector, rows: Vector, terms: Sum, h: float) -> None:
        """out = base + h · terms of the rows; out may be base."""
        ...

    def recur(self, stage: Vector, y: Vector, rows: Vector, which: int, terms: Sum) -> None:
        """That row = terms of the rows, itself among them; stage = y + that row."""
        ...

    def mean_squares(
        self,
        y: Vector,
        end: Vector | None,
        rows: Vector,
        sums: tuple[Sum, ...],
        atol: float | Vector,
        rtol: float,
    ) -> list[float]:
        """Of y, if `end` is None, and of each sum: the mean square of its entries over atol + rtol·max(|y|, |end|)."""
        ...

    def length(self, y: Vector, scales: Vector | None) -> float:
        """The 2-norm of y/scales."""
        ...

    def begin(self, direction: Vector, rate: Vector, scales: Vector | None) -> None:
        """direction = rate/scales, normalised, with a tenth of it in random directions; the same ones each time."""
        ...

    def tilt(self, direction: Vector, rate: Vector, scales: Vector | None, share: float) -> None:
        """direction = direction + share · rate/scales, of which each is normalised, normalised."""
        ...

    def shift(self, out: Vector, y: Vector, direction: Vector, size: float, scales: Vector | None) -> None:
        """out = y + size · scales · direction."""
        ...

    def quotient(
        self, direction: Vector, there: Vector, here: Vector, size: float, scales: Vector | None
    ) -> float:
        """direction = (there − here)/(size · scales), normalised; the 2-norm that it had before."""
        ...
