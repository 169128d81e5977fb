"""From free unknowns to symmetries: what single parameters may do alone, then what several do together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from nm_ode.symmetries.findings import Found
from nm_ode.symmetries.labels import equal_as_one
from nm_ode.symmetries.rules.translation.agreement import Agreement, Bases, Cells, Columns
from nm_ode.symmetries.rules.translation.elimination import Numbers, independent
from nm_ode.symmetries.symmetry import Part


@dataclass(frozen=True, eq=False)
class _Mover:
    """A free unknown that moves something.

    Attributes:
        first: which parameter it moves first, and which of its entries.
        scale: its coefficient there, which is made 1.
        signs: parameter → signs with which it is moved.
    """

    first: tuple[int, int, int]
    scale: float
    signs: dict[str, frozenset[int]]


def gathered(alone: Agreement | None, together: Agreement, rank: Mapping[str, int]) -> tuple[Found, ...]:
    """The translations: of each layer, then of those that compensate one another.

    Args:
        alone: solution of the system in which parameters do not compensate one another; None where they never do.
        together: of that in which they do.
        rank: parameter → its place in the model.
    """
    movers = _movers(together, rank)
    coupled = np.array([free for free, mover in movers.items() if len(mover.signs) > 1], dtype=np.int64)
    if alone is None:
        alone, coupled = together, coupled[:0]
    singles = np.array(sorted(free for free, mover in _movers(alone, rank).items() if len(mover.signs) == 1))
    singles, coupled = _basis(alone, singles.astype(np.int64), together, coupled)
    found = _found(alone, singles, rank)
    return (*found, *_found(together, coupled, rank))


def compensates(solution: Agreement) -> bool:
    """Does anything that is free move two parameters?"""
    moved: dict[int, set[str]] = defaultdict(set)
    for cells in solution.cells():
        for free in np.unique(cells.shares.indices):
            moved[int(free)].add(cells.view.parameter)
    return any(len(parameters) > 1 for parameters in moved.values())


def _movers(solution: Agreement, rank: Mapping[str, int]) -> dict[int, _Mover]:
    found: dict[int, _Mover] = {}
    signs: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for place, cells in _ordered(solution, rank):
        shares = coo_array(cells.shares)
        order = np.lexsort((shares.row, shares.col))
        columns, rows, data = shares.col[order], shares.row[order], shares.data[order]
        free, first = np.unique(columns, return_index=True)
        for which, at in zip(free.tolist(), first.tolist(), strict=True):
            if which not in found:
                start = rank[cells.view.parameter], place, int(rows[at])
                found[which] = _Mover(start, float(data[at]), {})
        pairs = np.unique(np.stack([columns, np.sign(data).astype(np.int64)]), axis=1)
        for which, sign in pairs.T.tolist():
            signs[which][cells.view.parameter].add(sign if found[which].scale > 0 else -sign)
    return {
        which: _Mover(
            mover.first, mover.scale, {name: frozenset(both) for name, both in signs[which].items()}
        )
        for which, mover in found.items()
    }


def _ordered(solution: Agreement, rank: Mapping[str, int]) -> list[tuple[int, Cells]]:
    """As the model lists its parameters."""
    return list(enumerate(sorted(solution.cells(), key=lambda cells: rank[cells.view.parameter])))


def _basis(
    alone: Agreement, singles: Numbers, together: Agreement, coupled: Numbers
) -> tuple[Numbers, Numbers]:
    """Of the free unknowns those that are independent, what is moved alone before what is moved together.

    A table that is looked up may shift place by place, and all places alike: the latter is the sum of the former.
    """
    bases: Bases = {}
    both, chosen = (alone, together), (singles, coupled)
    vectors = [own[part.sizes[own] > 1] for part, own in zip(both, chosen, strict=True)]
    numbers = [own[part.sizes[own] == 1] for part, own in zip(both, chosen, strict=True)]
    columns = [part.places(own, bases) for part, own in zip(both, vectors, strict=True)]
    vectors[1] = vectors[1][independent(_beside(columns), vectors[0].size)]
    given = [part.alike(own, bases) for part, own in zip(both, vectors, strict=True)]
    columns = [part.numbers(own, bases) for part, own in zip(both, numbers, strict=True)]
    kept = independent(_beside([*given, *columns]), sum(own.size for own in vectors))
    first = numbers[0].size
    return (
        np.sort(np.concatenate([vectors[0], numbers[0][kept[kept < first]]])),
        np.sort(np.concatenate([vectors[1], numbers[1][kept[kept >= first] - first]])),
    )


def _beside(columns: Sequence[Columns]) -> csr_array:
    """Columns of several solutions as one matrix, with rows for the entries that any of them moves."""
    entries = np.concatenate([column.entries for column in columns])
    starts = np.cumsum([0, *(column.count for column in columns)])
    places = np.concatenate([c.columns + start for c, start in zip(columns, starts, strict=False)])
    values = np.concatenate([column.values for column in columns])
    _, rows = np.unique(entries, return_inverse=True)
    return csr_array(
        coo_array(
            (values, (rows.reshape(-1), places)), shape=(int(rows.max(initial=-1)) + 1, int(starts[-1]))
        )
    )


def _found(solution: Agreement, chosen: Numbers, rank: Mapping[str, int]) -> tuple[Found, ...]:
    movers = _movers(solution, rank)
    cells = _ordered(solution, rank)
    groups: dict[object, list[int]] = defaultdict(list)
    for free in sorted(chosen.tolist(), key=lambda which: movers[which].first):
        groups[_key(movers[free])].append(free)
    allowed = _allowed(solution, cells)
    found = []
    for members in groups.values():
        starts = np.full(len(solution.sizes), -1)
        total = 0
        for free in members:
            starts[free] = total
            total += int(allowed[free].sum()) if free in allowed else 1
        scale = np.ones(len(solution.sizes))
        scale[members] = [movers[free].scale for free in members]
        parts: list[Part] = []
        for _, one in cells:
            parts += _parts(one, starts, scale, allowed)
        found.append(Found("translation", tuple(parts)))
    return tuple(found)


def _key(mover: _Mover) -> object:
    """What goes into one symmetry: layers alone; of those that compensate one another the layers on either side."""
    if len(mover.signs) == 1:
        (name,) = mover.signs
        return _layer(name)
    sides = [frozenset(name for name, signs in mover.signs.items() if sign in signs) for sign in (1, -1)]
    layers = [frozenset(map(_layer, side)) for side in sides]
    return tuple(sides) if layers[0] & layers[1] else tuple(layers)


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _allowed(solution: Agreement, cells: Sequence[tuple[int, Cells]]) -> dict[int, NDArray[np.bool_]]:
    """Free vector → which of its places may shift."""
    found = {
        int(free): np.ones(solution.sizes[free], dtype=bool) for free in np.flatnonzero(solution.sizes > 1)
    }
    changed = True
    while changed:
        changed = False
        for _, one in cells:
            members = [free for free in np.unique(one.shares.indices).tolist() if free in found]
            if members:
                may = np.logical_and.reduce([found[free] for free in members])
                may[list(one.still)] = False
                for free in members:
                    changed |= bool((found[free] != may).any())
                    found[free] = may
    return found


def _parts(
    cells: Cells, starts: Numbers, scale: NDArray[np.float64], allowed: Mapping[int, NDArray[np.bool_]]
) -> list[Part]:
    """A view's parts in one symmetry: one for each coefficient, and for each charge that an entry has beyond one."""
    shares = coo_array(cells.shares)
    mine = starts[shares.col] >= 0
    rows, columns = shares.row[mine], shares.col[mine]
    if not rows.size:
        return []
    weights = np.round(shares.data[mine] / scale[columns], 12)
    parts = []
    for weight in sorted(np.unique(weights).tolist(), reverse=True):
        here = np.flatnonzero(weights == weight)
        here = here[np.lexsort((columns[here], rows[here]))]
        new = np.append(True, np.diff(rows[here]) != 0)
        first = np.maximum.accumulate(np.where(new, np.arange(here.size), 0))
        turn = np.arange(here.size) - first
        for i in range(int(turn.max()) + 1):
            these = here[turn == i]
            index = _index(cells, rows[these], columns[these], starts, allowed)
            index = equal_as_one(index)
            axes = tuple(dim for dim, n in enumerate(index.shape) if n > 1)
            parts.append(Part(cells.view, axes, index.reshape(-1), weight))
    return parts


def _index(
    cells: Cells,
    rows: Numbers,
    columns: Numbers,
    starts: Numbers,
    allowed: Mapping[int, NDArray[np.bool_]],
) -> torch.Tensor:
    """For each cell, and each place of a vector, the charge; −1 for none."""
    index = np.full(int(np.prod(cells.shape)), -1)
    index[rows] = starts[columns]
    made = torch.from_numpy(index.reshape(cells.shape))
    if not cells.vector:
        return made
    may = allowed[int(columns[0])]
    number = torch.from_numpy(np.where(may, np.cumsum(may) - 1, -1))
    sizes = [cells.view.shape[axis] for axis in cells.vector]
    order = np.argsort(cells.vector)
    number = number.reshape(sizes).permute(*order.tolist())
    shape = [n if axis in cells.vector else 1 for axis, n in enumerate(cells.view.shape)]
    number = number.reshape(shape)
    return torch.where((made >= 0) & (number >= 0), made + number, -1)
