"""Coordinates that are always read together form a space, and spaces of the same weights (heads) one symmetry."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nm_ode.symmetries.rules.matrix.coordinates import Coordinates
from nm_ode.symmetries.rules.weights import overlap
from nm_ode.symmetries.symmetry import Part, View


@dataclass(frozen=True)
class _Place:
    """Where a coordinate is a row of a producer or a column of a consumer; it goes with M (+1) or M⁻ᵀ (−1) there."""

    consumed: bool
    number: int
    at: int
    sign: float

    @property
    def who(self) -> tuple[bool, int, float]:
        """The weight, whatever the row."""
        return self.consumed, self.number, self.sign


_Space: TypeAlias = list[list[_Place]]
"""For each of a space's coordinates the places of all that go with it."""


def parts_of_spaces(coordinates: Coordinates) -> list[tuple[Part, ...]]:
    """The parts of each symmetry: views of shape (blocks, d, rest)."""
    parity, representative, forbidden = _signed_classes(coordinates)
    read: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for number, row_of in enumerate(coordinates.contractions):
        for coordinate, row in row_of.items():
            read[representative[coordinate]].add((number, row))
    spaces: dict[frozenset[tuple[int, int]], list[int]] = defaultdict(list)
    for root in sorted(set(representative.values())):
        if root not in forbidden and read[root]:
            spaces[frozenset(read[root])].append(root)
    members: dict[int, list[int]] = defaultdict(list)
    for coordinate, root in representative.items():
        members[root].append(coordinate)
    places = _places(coordinates)

    def of_root(root: int) -> list[_Place]:
        return [
            _Place(place.consumed, place.number, place.at, place.sign * parity[coordinate])
            for coordinate in sorted(members[root])
            for place in places[coordinate]
        ]

    # Blocks of one symmetry are made and read by the same weights: heads.
    blocks: dict[tuple[int, tuple[tuple[bool, int, float], ...]], list[_Space]] = defaultdict(list)
    for roots in spaces.values():
        if len(roots) > 1:
            space = [of_root(root) for root in roots]
            who = {tuple(place.who for place in each) for each in space}
            if len(who) == 1:
                blocks[len(roots), who.pop()].append(space)
    made = [_parts(coordinates, spaces_of_one) for spaces_of_one in blocks.values()]
    return [parts for parts in made if parts is not None]


def _signed_classes(coordinates: Coordinates) -> tuple[dict[int, int], dict[int, int], set[int]]:
    """Coordinates that go together, by M (+1) or by M⁻ᵀ (−1) relative to the first of them.

    Returns:
        For each coordinate its sign, and the first that it goes with; and which of these first ones are forbidden.
    """
    neighbours: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for one, other, sign in coordinates.links:
        neighbours[one].append((other, sign))
        neighbours[other].append((one, sign))
    parity: dict[int, int] = {}
    representative: dict[int, int] = {}
    forbidden: set[int] = set()
    for start in range(coordinates.count):
        if start in parity:
            continue
        parity[start] = 1
        waiting = [start]
        while waiting:
            one = waiting.pop()
            representative[one] = start
            if one in coordinates.forbidden:
                forbidden.add(start)
            for other, sign in neighbours[one]:
                if other not in parity:
                    parity[other] = sign * parity[one]
                    waiting.append(other)
                elif parity[other] != sign * parity[one]:
                    forbidden.add(start)
    return parity, representative, forbidden


def _places(coordinates: Coordinates) -> dict[int, list[_Place]]:
    """For each coordinate where it is made and read, as if it went with M."""
    places: dict[int, list[_Place]] = defaultdict(list)
    for number, producer in enumerate(coordinates.producers):
        for row in range(producer.weight.shape[0]):
            places[producer.first + row].append(_Place(False, number, row, 1.0))
    for number, consumer in enumerate(coordinates.consumers):
        for column, coordinate in enumerate(consumer.coordinates.tolist()):
            places[coordinate].append(_Place(True, number, column, -1.0))
    return places


def _parts(coordinates: Coordinates, spaces: list[_Space]) -> tuple[Part, ...] | None:
    """A part for each weight; None where its rows are not evenly spaced, or it is used for something else too."""
    rows = np.array([[[place.at for place in each] for each in space] for space in spaces])
    n_blocks, d, n_places = rows.shape
    charges = torch.arange(n_blocks)
    parts: list[Part] = []
    for i in range(n_places):
        place = spaces[0][0][i]
        steps = _regular(rows[:, :, i])
        if steps is None:
            return None
        start, block_step, row_step = steps
        for view, axis in _weights(coordinates, place):
            if sum(overlap(view, other) for other in coordinates.uses[view.parameter]) != 1:
                return None  # tied to something else
            stride = view.strides[axis]
            rest = [
                (n, s) for j, (n, s) in enumerate(zip(view.shape, view.strides, strict=True)) if j != axis
            ]
            size, step = rest[0] if rest else (1, 1)
            taken = View(
                view.parameter,
                (n_blocks, d, size),
                (block_step * stride, row_step * stride, step),
                view.offset + start * stride,
            )
            parts.append(Part(taken, (0,), charges, place.sign))
    return tuple(parts)


def _weights(coordinates: Coordinates, place: _Place) -> list[tuple[View, int]]:
    """The views that a place is in, and the axis along which coordinates lie."""
    if place.consumed:
        return [(coordinates.consumers[place.number].weight, 1)]
    producer = coordinates.producers[place.number]
    return [(producer.weight, 0)] + ([(producer.bias, 0)] if producer.bias is not None else [])


def _regular(rows: NDArray[np.int64]) -> tuple[int, int, int] | None:
    """(start, step between blocks, step within) of rows (blocks, d); None if they are not evenly spaced."""
    start = int(rows[0, 0])
    block_step = int(rows[1, 0]) - start if len(rows) > 1 else int(rows.size)
    row_step = int(rows[0, 1]) - start
    even = start + block_step * np.arange(len(rows))[:, None] + row_step * np.arange(rows.shape[1])
    return (start, block_step, row_step) if bool((even == rows).all()) else None
