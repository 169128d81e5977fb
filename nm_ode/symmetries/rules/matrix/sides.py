"""Weights' sides: the rows or the columns of a parameter that a mixing acts on, numbered once whatever their uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from nm_ode.symmetries.rules.weights import Weight, described, overlap
from nm_ode.symmetries.symmetry import Dims, View, joined


@dataclass(frozen=True)
class Side:
    """Entries of a parameter, by a coordinate and a place along the rest.

    Attributes:
        view: all of its entries.
        along: dimensions that number the coordinates.
        rest: the other dimensions: what a coordinate has, a row or a column.
        first: number of the first coordinate; the others follow in the order of their entries.
    """

    view: View
    along: Dims
    rest: Dims
    first: int

    @property
    def count(self) -> int:
        return prod(n for n, _ in self.along)

    @property
    def starts(self) -> Tensor:
        """For each coordinate its first entry in the flattened parameter."""
        return self.view.offset + _offsets(self.along).reshape(-1).sort().values


@dataclass
class Sides:
    """All sides that have been met, and how their parameters are used."""

    count: int = 0
    sides: list[Side] = field(default_factory=list)
    _numbers: dict[tuple[str, int, Dims, Dims], int] = field(default_factory=dict)
    _uses: dict[str, dict[tuple[View, frozenset[int]], None]] = field(default_factory=dict)

    def use(self, weight: Weight, *sides: tuple[int, ...]) -> list[Tensor]:
        """A parameter is used, and mixed along some of its axes only in the ways that are given.

        Args:
            sides: axes of the weight's view that number coordinates together.

        Returns:
            For each side the numbers of its coordinates, of the shape of these axes.
        """
        found = [self._side(weight, axes) for axes in sides]
        view = described(weight.name, weight.view)
        self._uses.setdefault(weight.name, {})[view, frozenset(number for number, _ in found)] = None
        return [coordinates for _, coordinates in found]

    def forbidden(self) -> list[Tensor]:
        """Coordinates of sides that another use of the same entries does not have."""
        found = []
        for number, side in enumerate(self.sides):
            for view, sides in self._uses[side.view.parameter]:
                if number not in sides and overlap(view, side.view):
                    found.append(torch.arange(side.first, side.first + side.count))
                    break
        return found

    def _side(self, weight: Weight, axes: tuple[int, ...]) -> tuple[int, Tensor]:
        shape, strides = weight.view.shape, weight.view.stride()
        along = tuple((shape[axis], strides[axis]) for axis in axes)
        rest = joined((shape[d], strides[d]) for d in range(len(shape)) if d not in axes)
        view = described(weight.name, weight.view)
        key = (weight.name, view.offset, joined(along), rest)
        if key not in self._numbers:
            self._numbers[key] = len(self.sides)
            self.sides.append(Side(view, joined(along), rest, self.count))
            self.count += self.sides[-1].count
        number = self._numbers[key]
        places = _offsets(along)
        order = places.reshape(-1).argsort().argsort() if places.ndim != 1 else torch.arange(places.numel())
        return number, self.sides[number].first + order.reshape(places.shape)


def _offsets(dims: Dims) -> Tensor:
    """Where the entries along some dimensions lie, in their order."""
    total = torch.zeros((), dtype=torch.int64)
    for i, (n, stride) in enumerate(dims):
        total = total + (torch.arange(n) * stride).reshape([-1 if j == i else 1 for j in range(len(dims))])
    return total
