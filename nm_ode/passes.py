"""Sums of products of vectors of theta's size: readers say which they need, and one pass makes them all.

What they cost is memory's bandwidth. So each vector is read once for all readers, some rows at a time, which stay in
the processor's cache for all products; on a device nothing is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from nm_ode.parameters import Difference, Layout, Parts, Slot, Vector

Pair: TypeAlias = tuple[str, str]
"""Names of two vectors, whose entries are multiplied."""

_CHUNK = 1 << 16  # entries of a product that are held at a time: few enough for a processor core's cache
_CHUNK_OF_DEVICE = 1 << 22  # on a GPU, where each operation costs a launch


class Strided(Protocol):
    """A view of one parameter, as symmetries have it."""

    @property
    def parameter(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def offset(self) -> int: ...

    @property
    def size(self) -> int: ...

    def of(self, vector: Vector, start: int = 0) -> Tensor:
        """The view of a vector of theta's size, in which, if it is flat, the parameter begins at `start`."""
        ...


@dataclass(frozen=True)
class Sum:
    """Σ u·v over a view of a parameter, but for the axes that are kept; their sizes flattened are its shape."""

    pair: Pair
    view: Strided
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Wanted:
    """What a reader needs of one pass.

    Attributes:
        totals: pairs of which ⟨u, v⟩ is wanted of every parameter.
        sums: over views.
        copies: names of vectors that are copied, and the copies' own names.
    """

    totals: frozenset[Pair] = frozenset()
    sums: frozenset[Sum] = frozenset()
    copies: frozenset[tuple[str, str]] = frozenset()

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(self.totals | other.totals, self.sums | other.sums, self.copies | other.copies)


@dataclass(frozen=True, eq=False)
class Found:
    """What a pass gives, in float64 on the device of the vectors.

    Attributes:
        totals: shape (slots,) for each pair.
        sums: as asked for.
    """

    totals: Mapping[Pair, Tensor]
    sums: Mapping[Sum, Tensor]


@dataclass(eq=False)
class _Region:
    """Part of a parameter, read as a matrix (n, rest): all that is wanted of it."""

    slot: int
    start: int
    name: str
    view: Strided | None  # None: all of the parameter, in any order
    shape: tuple[int, ...]
    sums: dict[Pair, list[Sum]] = field(default_factory=dict)
    totals: set[Pair] = field(default_factory=set)
    copies: set[tuple[str, str]] = field(default_factory=set)

    @property
    def pairs(self) -> list[Pair]:
        return list(dict.fromkeys([*self.sums, *sorted(self.totals)]))

    def of(self, vector: Vector) -> Tensor:
        """Its entries of a vector, as (n, rest); a view wherever there is one."""
        if self.view is not None:
            found = self.view.of(vector, self.start)
        elif isinstance(vector, Parts):
            found = vector[self.name]
        else:
            found = vector[self.start : self.start + prod(self.shape)]
        return found.reshape(self.shape[0], prod(self.shape[1:]))


class Pass:
    """All sums of products that are wanted at a time.

    Args:
        layout: of the vectors.
        wanted: of all readers.
        chunk: how many entries are read at a time; by default so many as suit the device.
    """

    def __init__(self, layout: Layout, wanted: Wanted, chunk: int | None = None) -> None:
        self._chunk = chunk
        self._totals = sorted(wanted.totals)
        self._regions = _regions(layout, wanted)
        self._scratch: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, vectors: Mapping[str, Vector]) -> Found:
        """Read the vectors once.

        Args:
            vectors: each that is named in a pair or a copy.
        """
        totals: dict[Pair, list[Tensor]] = {pair: [] for pair in self._totals}
        sums: dict[Sum, Tensor] = {}
        for region in self._regions:
            of_region = self._read(region, vectors, sums)
            for pair in region.totals:
                totals[pair].append(of_region[pair])
        return Found({pair: torch.stack(parts) for pair, parts in totals.items()}, sums)

    def _read(
        self, region: _Region, vectors: Mapping[str, Vector], sums: dict[Sum, Tensor]
    ) -> dict[Pair, Tensor]:
        n, m = region.shape[0], prod(region.shape[1:])
        used = dict.fromkeys([name for pair in region.pairs for name in pair] + [a for a, _ in region.copies])
        matrices = {name: region.of(vectors[name]) for name in used if not _is_lazy(vectors[name])}
        lazy = {
            name: (region.of(vector.after), region.of(vector.before))
            for name in used
            if isinstance(vector := vectors[name], Difference) and _is_lazy(vector)
        }
        like = next(iter(matrices.values())) if matrices else next(iter(lazy.values()))[0]
        chunk = self._chunk or (_CHUNK if like.device.type == "cpu" else _CHUNK_OF_DEVICE)
        at_a_time = max(1, min(n, chunk // max(1, m)))
        pieces = {name: matrix.split(at_a_time) for name, matrix in matrices.items()}
        of_lazy = {
            name: (after.split(at_a_time), before.split(at_a_time)) for name, (after, before) in lazy.items()
        }
        copies = [(name, region.of(vectors[copy]).split(at_a_time)) for name, copy in sorted(region.copies)]
        products = [_Product(pair, region, at_a_time, like) for pair in region.pairs]
        made = self._room("product", at_a_time * m, like).view(at_a_time, m)
        moved = {name: self._room(name, at_a_time * m, like).view(at_a_time, m) for name in lazy}
        for i in range(-(-n // at_a_time)):
            here = {name: parts[i] for name, parts in pieces.items()}
            for name, (after, before) in of_lazy.items():
                here[name] = torch.sub(after[i], before[i], out=moved[name][: len(after[i])])
            for product in products:
                product.add(i, here[product.pair[0]], here[product.pair[1]], made)
            for name, parts in copies:
                parts[i].copy_(here[name])
        for product in products:
            sums.update(product.sums())
        return {product.pair: product.total() for product in products if product.pair in region.totals}

    def _room(self, name: str, size: int, like: Tensor) -> Tensor:
        room = self._scratch.get(name)
        if (
            room is None
            or room.numel() < size
            or (room.dtype, room.device)
            != (
                like.dtype,
                like.device,
            )
        ):
            room = self._scratch[name] = like.new_empty(size)
        return room[:size]


class _Product:
    """u·v of one region, and its sums: over rows, over columns, over all, as they are wanted.

    Args:
        rows: of the region that are read at a time.
    """

    def __init__(self, pair: Pair, region: _Region, rows: int, like: Tensor) -> None:
        self.pair = pair
        self._shape = region.shape
        self._sums = region.sums.get(pair, [])
        n, m = region.shape[0], prod(region.shape[1:])
        chunks = -(-n // rows)
        axes = {one.axes for one in self._sums}
        # By row, by column (of each chunk, to be added at the end: fewer roundings one after the other), or all.
        self._rows = like.new_empty(n) if (0,) in axes else None
        self._columns = like.new_empty(chunks, m) if any(one and 0 not in one for one in axes) else None
        self._others: dict[tuple[int, ...], list[Tensor]] = {
            one: [] for one in axes if len(one) > 1 and 0 in one
        }
        alone = self._rows is None and self._columns is None
        self._all = like.new_empty(chunks) if alone and (pair in region.totals or () in axes) else None
        self._by_row = () if self._rows is None else self._rows.split(rows)
        self._ones = like.new_ones(rows) if self._columns is not None else None
        self._elementwise = not alone or bool(self._others)

    def add(self, i: int, u: Tensor, v: Tensor, room: Tensor) -> None:
        """Chunk i."""
        if self._all is not None:
            torch.dot(u.reshape(-1), v.reshape(-1), out=self._all[i])
        if not self._elementwise:
            return
        made = torch.mul(u, v, out=room[: len(u)])
        if self._by_row:
            torch.sum(made, 1, out=self._by_row[i])
        if self._columns is not None and self._ones is not None:
            torch.mv(made.t(), self._ones[: len(u)], out=self._columns[i])
        for axes, parts in self._others.items():
            whole = made.view(len(u), *self._shape[1:])
            others = [dim for dim in range(whole.ndim) if dim not in axes]
            parts.append((whole.sum(others) if others else whole.clone()).reshape(-1))

    def sums(self) -> dict[Sum, Tensor]:
        """Those that are wanted."""
        found: dict[tuple[int, ...], Tensor] = {}
        for one in self._sums:
            if one.axes not in found:
                found[one.axes] = self._kept(one.axes)
        return {one: found[one.axes] for one in self._sums}

    def _kept(self, axes: tuple[int, ...]) -> Tensor:
        if not axes:
            return self.total().reshape(1)
        if axes == (0,):
            assert self._rows is not None
            return self._rows.double()
        if 0 in axes:
            return torch.cat(self._others[axes]).double()
        assert self._columns is not None
        columns = self._columns.sum(0, dtype=torch.float64).view(self._shape[1:])
        others = [dim for dim in range(columns.ndim) if dim + 1 not in axes]
        return (columns.sum(others) if others else columns).reshape(-1)

    def total(self) -> Tensor:
        """⟨u, v⟩, from whichever sums there are."""
        partial = next(one for one in (self._all, self._rows, self._columns) if one is not None)
        return partial.sum(dtype=torch.float64)


class Passes:
    """What the observers of a run have asked for: one pass before each step, one after it.

    Args:
        layout: of theta.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._asked: list[tuple[bool, Wanted, Collection[int]]] = []
        self._passes: dict[tuple[int, ...], Pass] = {}
        self._known: dict[str, Callable[[Any], Vector]] = {}
        self._last: tuple[object, bool, Found] | None = None

    def know(self, name: str, vector: Callable[[Any], Vector]) -> None:
        """A vector of a reader's own under a name: a function of the view of a step."""
        self._known[name] = vector

    def ask(self, wanted: Wanted, steps: Collection[int], *, after: bool = False) -> None:
        """Make these sums at these steps, before the step or after it."""
        self._asked.append((after, wanted, steps))

    def of(self, view: Viewed, *, after: bool = False) -> Found:
        """All that was asked for of this step, made when it is first called for."""
        if self._last is None or self._last[0] is not view or self._last[1] != after:
            self._last = (view, after, self._made(view, after))
        return self._last[2]

    def _made(self, view: Viewed, after: bool) -> Found:
        active = tuple(
            i for i, (when, _, steps) in enumerate(self._asked) if when == after and view.step in steps
        )
        wanted = Wanted()
        for i in active:
            wanted |= self._asked[i][1]
        if active not in self._passes:
            self._passes[active] = Pass(self._layout, wanted)
        names: dict[str, None] = {}
        for pair in [*wanted.totals, *(one.pair for one in wanted.sums), *wanted.copies]:
            names |= dict.fromkeys(pair)
        return self._passes[active](
            {name: self._known.get(name, _of_view(name))(view) for name in sorted(names)}
        )


def _of_view(name: str) -> Callable[[Any], Vector]:
    return lambda view: view.vector(name)


class Viewed(Protocol):
    """A view of a step, as observers have it."""

    @property
    def step(self) -> int: ...

    def vector(self, name: str) -> Vector: ...


def totals(*pairs: Pair) -> Wanted:
    """⟨u, v⟩ of every parameter."""
    return Wanted(totals=frozenset(pairs))


def _is_lazy(vector: Vector) -> bool:
    return isinstance(vector, Difference) and not vector.is_made


def _regions(layout: Layout, wanted: Wanted) -> list[_Region]:
    """One for each view, totals and copies with a view that is all of its parameter."""
    numbers = {slot.name: i for i, slot in enumerate(layout.slots)}
    regions: list[_Region] = []
    for slot in layout.slots:
        mine: dict[Strided, _Region] = {}
        for one in _in_order(wanted.sums, slot):
            region = mine.setdefault(
                one.view, _Region(numbers[slot.name], slot.start, slot.name, one.view, one.view.shape or (1,))
            )
            region.sums.setdefault(one.pair, []).append(one)
        whole = next((one for view, one in mine.items() if _is_whole(view, slot)), None)
        if whole is None and (wanted.totals or wanted.copies):
            whole = _Region(numbers[slot.name], slot.start, slot.name, None, (slot.size,))
            regions.append(whole)
        if whole is not None:
            whole.totals = set(wanted.totals)
            whole.copies = set(wanted.copies)
        regions.extend(mine.values())
    return regions


def _in_order(sums: Iterable[Sum], slot: Slot) -> list[Sum]:
    return sorted((one for one in sums if one.view.parameter == slot.name), key=repr)


def _is_whole(view: Strided, slot: Slot) -> bool:
    """Is it each of the parameter's entries once, in order?"""
    expected = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return view.size == slot.size and view.offset == 0
