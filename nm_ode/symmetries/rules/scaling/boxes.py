"""Views of one parameter in a common frame: places as numbers of several digits, and views as boxes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor

from nm_ode.symmetries.labels import placed
from nm_ode.symmetries.symmetry import View


@dataclass(frozen=True)
class Box:
    """Of each digit a range."""

    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(high - low for low, high in zip(self.low, self.high, strict=True))

    @property
    def size(self) -> int:
        return prod(self.shape)

    def common(self, other: Box) -> Box | None:
        """What two boxes have in common."""
        low = tuple(map(max, self.low, other.low))
        high = tuple(map(min, self.high, other.high))
        return Box(low, high) if all(a < b for a, b in zip(low, high, strict=True)) else None

    def without(self, other: Box) -> list[Box]:
        """What is not in another, as boxes."""
        common = self.common(other)
        if common is None:
            return [self]
        pieces, rest = [], self
        for digit in range(len(self.low)):
            for low, high in (
                (rest.low[digit], common.low[digit]),
                (common.high[digit], rest.high[digit]),
            ):
                if low < high:
                    pieces.append(rest._cut(digit, low, high))
            rest = rest._cut(digit, common.low[digit], common.high[digit])
        return pieces

    def _cut(self, digit: int, low: int, high: int) -> Box:
        def put(ends: tuple[int, ...], end: int) -> tuple[int, ...]:
            return (*ends[:digit], end, *ends[digit + 1 :])

        return Box(put(self.low, low), put(self.high, high))

    def within(self, other: Box, grid: Tensor) -> Tensor:
        """Of a grid over another box, in which a dimension of size one is broadcast, the part over this box."""
        for digit, (low, n, whole) in enumerate(zip(self.low, self.shape, other.shape, strict=True)):
            if n < whole and grid.shape[digit] > 1:
                grid = grid.narrow(digit, low - other.low[digit], n)
        return grid


@dataclass(frozen=True)
class Frame:
    """The place of an entry in its flattened parameter is Σ digit · stride; each stride is a multiple of the next."""

    strides: tuple[int, ...]

    def place(self, view: View) -> tuple[Box, list[list[int]]]:
        """A view's box, and for each of its axes the digits that it consists of, the largest first.

        Raises:
            ValueError: it is no box.
        """
        low, rest = [], view.offset
        for stride in self.strides:
            low.append(rest // stride)
            rest %= stride
        high = [digit + 1 for digit in low]
        digits: list[list[int]] = []
        taken: set[int] = set()
        for n, stride in zip(view.shape, view.strides, strict=True):
            own: list[int] = []
            digit = self.strides.index(stride) if n > 1 else 0
            while n > 1:
                if digit in taken:
                    raise ValueError("two axes with one digit")
                most = self.strides[digit - 1] // self.strides[digit] if digit else low[digit] + n
                taken.add(digit)
                own.insert(0, digit)
                if low[digit] + n <= most:
                    high[digit], n = low[digit] + n, 1
                elif low[digit] or n % most:
                    raise ValueError("an axis that begins or ends within a larger digit")
                else:
                    high[digit], n = most, n // most
                    digit -= 1
            digits.append(own)
        return Box(tuple(low), tuple(high)), digits

    def grid(
        self, box: Box, view: View, digits: list[list[int]], axes: tuple[int, ...], variables: Tensor
    ) -> Tensor:
        """Variables along some axes of a view, one dimension a digit; of size one where they do not vary."""
        order = [digit for axis in axes for digit in digits[axis]]
        return placed(variables.reshape([box.shape[digit] for digit in order]), order, len(box.shape))

    def view(self, parameter: str, box: Box) -> View:
        """A box as a view, one axis a digit."""
        offset = sum(low * stride for low, stride in zip(box.low, self.strides, strict=True))
        return View(parameter, box.shape, self.strides, offset)


def frame_of(views: Sequence[View]) -> Frame | None:
    """One in which all are boxes; None if there is none."""
    strides = {s for view in views for n, s in zip(view.shape, view.strides, strict=True) if n > 1} | {1}
    ordered = sorted(strides, reverse=True)
    if any(stride < 1 for stride in ordered) or any(a % b for a, b in pairwise(ordered)):
        return None
    frame = Frame(tuple(ordered))
    try:
        for view in views:
            frame.place(view)
    except ValueError:
        return None
    return frame
