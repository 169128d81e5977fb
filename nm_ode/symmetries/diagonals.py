"""Which charges are the diagonal of a matrix symmetry's, so that they are counted once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.symmetries.findings import Found
from nm_ode.symmetries.kinds import KINDS
from nm_ode.symmetries.symmetry import Part, in_rows, joined

Row: TypeAlias = tuple[str, int, int, int, float]
"""Entries of a parameter at equal distances: the first, how many, how far, and their weight in a charge."""


def diagonals(
    found: Sequence[Found], names: Mapping[int, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[int, str]:
    """For each symmetry whose charges are all on the diagonal of others': the name of the first of these."""
    wholes = [i for i, one in enumerate(found) if KINDS[one.kind].diagonal is not None]
    owner: dict[tuple[str, frozenset[Row]], int] = {}
    moved = set()
    for i in wholes:
        moved |= _parameters(found[i])
        for rows in _charges(found[i].parts, (0, 1)):
            kind = KINDS[found[i].kind].diagonal
            assert kind is not None
            owner[kind, rows] = owner[kind, _other_side(rows)] = i
    within = {}
    for i, one in enumerate(found):
        if i in wholes or not _parameters(one) <= moved:
            continue
        owners = [owner.get((one.kind, rows)) for rows in _charges(one.parts)]
        if None not in owners and owners:
            within[i] = names[owners[0]]  # type: ignore[index]
            continue
        for j in wholes:  # where a part lists its entries one by one
            other = found[j]
            if KINDS[other.kind].diagonal == one.kind and _parameters(one) == _parameters(other):
                alike = (
                    _moved(one, name, shapes[name]) == _moved(other, name, shapes[name])
                    for name in _parameters(one)
                )
                if all(bool(entries.all()) for entries in alike):
                    within[i] = names[j]
    return within


def _parameters(found: Found) -> set[str]:
    return {part.parameter for part in found.parts}


def _moved(found: Found, name: str, shape: tuple[int, ...]) -> Tensor:
    """For each entry of a parameter whether it takes part."""
    takes_part = torch.zeros(prod(shape), dtype=torch.bool)
    for part in found.parts:
        if part.parameter == name:
            part.mark(takes_part)
    return takes_part


def _charges(parts: Sequence[Part], axes: tuple[int, ...] | None = None) -> list[frozenset[Row]]:
    """Of each charge the rows that it moves; of a matrix symmetry's those on the diagonal."""
    found: dict[int, set[Row]] = defaultdict(set)
    for part in parts:
        view, along = part.view, part.axes if axes is None else axes
        starts: NDArray[np.int64] = np.full((), view.offset)
        for axis in along:
            starts = starts[..., None] + np.arange(view.shape[axis]) * view.strides[axis]
        starts = starts.reshape(-1)
        charges = torch.arange(len(starts)) if axes is not None else part.index
        rest = [(view.shape[dim], view.strides[dim]) for dim in range(len(view.shape)) if dim not in along]
        (size, step), shifts = in_rows(joined(rest))
        for charge, start in zip(charges.tolist(), starts.tolist(), strict=True):
            if charge >= 0:
                found[charge] |= {
                    (view.parameter, start + shift, size, step, part.weight) for shift in shifts
                }
    return [frozenset(rows) for rows in found.values()]


def _other_side(rows: frozenset[Row]) -> frozenset[Row]:
    return frozenset((*row[:-1], -row[-1]) for row in rows)
