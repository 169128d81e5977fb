"""Coordinates that are always summed over together form a space, spaces of the same weights (heads) one symmetry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nm_ode.symmetries.forms.blocks import square_of
from nm_ode.symmetries.rules.matrix.conditions import Conditions
from nm_ode.symmetries.rules.matrix.sides import Side, Sides
from nm_ode.symmetries.rules.weights import overlap
from nm_ode.symmetries.symmetry import Part, View, in_rows

Integers = NDArray[np.int64]

_MOST_PARTS = 128
"""Of one weight: more than a convolution of any size has offsets is not worth it."""


@dataclass(frozen=True, eq=False)
class _Classes:
    """Coordinates that go together, by M (+1) or by M⁻ᵀ (−1) relative to the first of them.

    Attributes:
        root: coordinate → the first that it goes with.
        sign: coordinate → ±1.
        free: root → it may be mixed.
    """

    root: Integers
    sign: Integers
    free: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Space:
    """Coordinates that are mixed with one another.

    Attributes:
        members: shape (d, slots): for each coordinate all that go with it; a slot holds one vector's coordinates.
        signs: of each slot.
        sides: of each slot the side that it lies on.
    """

    members: Integers
    signs: tuple[int, ...]
    sides: tuple[int, ...]


def parts_of_spaces(sides: Sides, conditions: Conditions) -> list[tuple[Part, ...]]:
    """The parts of each symmetry: views of shape (blocks, d, rest)."""
    if not sides.count or not conditions.sums:
        return []
    classes = _classes(sides.count, conditions)
    spaces = [space for space in _spaces(sides, conditions, classes) if len(space.members) > 1]
    spaces = _consistent(spaces, sides.count, conditions)
    blocks: dict[tuple[int, tuple[int, ...], tuple[int, ...]], list[_Space]] = defaultdict(list)
    for space in spaces:
        blocks[len(space.members), space.sides, space.signs].append(space)
    made: list[tuple[Part, ...] | None] = []
    for alike in blocks.values():
        together = _parts(sides, alike)
        # Heads that do not lie evenly are symmetries of their own.
        made += [together] if together is not None else [_parts(sides, [space]) for space in alike]
    return [parts for parts in made if parts is not None]


def _classes(count: int, conditions: Conditions) -> _Classes:
    """By the components of the graph of links, each coordinate in it twice: as it is, and as its opposite."""
    none = np.empty((0, 2), dtype=np.int64)
    alike = np.concatenate([none, *(link.pairs.numpy() for link in conditions.links if link.sign == 1)])
    opposite = np.concatenate([none, *(link.pairs.numpy() for link in conditions.links if link.sign == -1)])
    one = np.concatenate([alike[:, 0], alike[:, 0] + count, opposite[:, 0], opposite[:, 0] + count])
    other = np.concatenate([alike[:, 1], alike[:, 1] + count, opposite[:, 1] + count, opposite[:, 1]])
    edges = coo_array((np.ones(len(one)), (one, other)), shape=(2 * count, 2 * count))
    component = connected_components(edges, directed=False)[1]
    plain, mirrored = component[:count], component[count:]
    class_of = np.minimum(plain, mirrored)
    first = np.full(2 * count, count, dtype=np.int64)
    np.minimum.at(first, class_of, np.arange(count))
    root = first[class_of]
    free = np.ones(count, dtype=bool)
    free[root[plain == mirrored]] = False
    for forbidden in conditions.forbidden:
        free[root[forbidden.numpy()]] = False
    for summed in conditions.sums.values():
        roots, times = np.unique(root[summed.numpy()], return_counts=True)
        free[roots[times > 1]] = False
    return _Classes(root, np.where(plain == plain[root], 1, -1), free)


def _spaces(sides: Sides, conditions: Conditions, classes: _Classes) -> Iterator[_Space]:
    """Classes that are in the same sums, and on the same sides."""
    read: dict[int, list[int]] = defaultdict(list)
    for number, summed in enumerate(conditions.sums.values()):
        for root in np.unique(classes.root[summed.numpy()]).tolist():
            if classes.free[root]:
                read[root].append(number)
    members: dict[int, list[int]] = defaultdict(list)
    for coordinate in np.flatnonzero(np.isin(classes.root, np.array(sorted(read), dtype=np.int64))).tolist():
        members[int(classes.root[coordinate])].append(coordinate)
    firsts = np.array([side.first for side in sides.sides])
    alike: dict[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], list[int]] = defaultdict(list)
    for root in sorted(read):
        coordinates = np.array(members[root])
        on = tuple((np.searchsorted(firsts, coordinates, side="right") - 1).tolist())
        alike[tuple(read[root]), on, tuple(classes.sign[coordinates].tolist())].append(root)
    for (_, on, signs), roots in alike.items():
        yield _Space(np.array([members[root] for root in roots]), signs, on)


def _consistent(spaces: list[_Space], count: int, conditions: Conditions) -> list[_Space]:
    """Those whose slots hold what is summed over at once, and meet slot by slot."""
    space_of, slot_of = np.full(count, -1), np.full(count, -1)
    for number, space in enumerate(spaces):
        space_of[space.members] = number
        slot_of[space.members] = np.arange(space.members.shape[1])
    wrong: set[int] = set()
    for summed in conditions.sums.values():
        coordinates = summed.numpy()
        pairs = np.unique(np.stack([space_of[coordinates], slot_of[coordinates]], axis=1), axis=0)
        numbers, times = np.unique(pairs[:, 0], return_counts=True)
        wrong.update(numbers[times > 1].tolist())
    for link in conditions.links:
        if link.sign == 1:
            one, other = link.pairs.numpy().T
            meets = np.unique(np.stack([space_of[one], slot_of[one], slot_of[other]], axis=1), axis=0)
            slots, times = np.unique(meets[:, :2], axis=0, return_counts=True)
            wrong.update(slots[times > 1, 0].tolist())
    return [space for number, space in enumerate(spaces) if number not in wrong]


def _parts(sides: Sides, spaces: Sequence[_Space]) -> tuple[Part, ...] | None:
    """A part for each slot; None where its rows are not evenly spaced, or rows meet columns but in a square."""
    members = np.stack([space.members for space in spaces])  # (blocks, d, slots)
    charges = torch.arange(len(spaces))
    parts: list[Part] = []
    side_of: list[int] = []
    for slot, (number, sign) in enumerate(zip(spaces[0].sides, spaces[0].signs, strict=True)):
        side = sides.sides[number]
        steps = _regular(side.starts.numpy()[members[:, :, slot] - side.first])
        if steps is None:
            return None
        views = _views(side, members.shape[:2], steps)
        if views is None:
            return None
        parts += [Part(view, (0,), charges, float(sign)) for view in views]
        side_of += [number] * len(views)
    for (one, a), (other, b) in combinations(zip(parts, side_of, strict=True), 2):
        apart = a == b or one.parameter != other.parameter or not overlap(one.view, other.view)
        if not apart and square_of(one.view, other.view) is None:  # W → M W M⁻¹ of a square alone
            return None
    return tuple(parts)


def _regular(entries: Integers) -> tuple[int, int, int] | None:
    """(start, step between blocks, step within) of entries (blocks, d); None if they are not evenly spaced."""
    start = int(entries[0, 0])
    block_step = int(entries[1, 0]) - start if len(entries) > 1 else int(entries.size)
    row_step = int(entries[0, 1]) - start
    even = start + block_step * np.arange(len(entries))[:, None] + row_step * np.arange(entries.shape[1])
    return (
        (start, block_step, row_step) if row_step > 0 < block_step and bool((even == entries).all()) else None
    )


def _views(side: Side, sizes: tuple[int, ...], steps: tuple[int, int, int]) -> list[View] | None:
    """Views (blocks, d, rest); several where the rest is not one dimension."""
    start, block_step, row_step = steps
    (size, step), shifts = in_rows(side.rest)
    if len(shifts) > _MOST_PARTS:
        return None
    return [
        View(side.view.parameter, (*sizes, size), (block_step, row_step, step), start + shift)
        for shift in shifts
    ]
