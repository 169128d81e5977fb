"""The second half of the system: vectors are made of numbers, and all uses of a parameter say the same of its entries.

Vectors that take part in neither stay vectors, a charge for each place, however long they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack
from torch import Tensor

from nm_ode.symmetries.labels import compressed, equal_as_one
from nm_ode.symmetries.rules.translation.elimination import Numbers, fingerprints, solved
from nm_ode.symmetries.rules.translation.system import ZERO, System
from nm_ode.symmetries.rules.translation.uses import Share, Use, Uses
from nm_ode.symmetries.symmetry import View

_MOST = 1 << 22
"""Entries of which two uses are compared one by one, and numbers that vectors are taken apart into."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The shift of a view's entries, as far as they differ.

    Attributes:
        view: of the entries.
        shape: of the cells: 1 along axes of the view along which all is equal.
        shares: shape (cells, free): combinations of what is free.
        vector: axes along which a free one is a vector.
        still: places of vectors that may not shift.
    """

    view: View
    shape: tuple[int, ...]
    shares: csr_array
    vector: tuple[int, ...]
    still: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Columns:
    """What some free unknowns do to entries: by how much, as a sparse matrix with a column for each.

    Attributes:
        entries: numbers that are the same for all systems of one graph.
        columns: places among the unknowns.
        values: by how much.
        count: of unknowns.
    """

    entries: Numbers
    columns: Numbers
    values: NDArray[np.float64]
    count: int


Bases: TypeAlias = dict[object, int]
"""A share of a use → the number of its first entry, filled while systems are read."""


class Agreement:
    """What is free once all agrees.

    Attributes:
        sizes: of each free unknown how many numbers it is.
    """

    def __init__(self, system: System, uses: Uses, shapes: dict[str, tuple[int, ...]]) -> None:
        pairs = uses.finish(shapes)
        self._first = system.solve()
        self._apart = self._taken_apart(uses, pairs)
        sizes = self._first.sizes
        count = np.where(self._apart, sizes, 1)
        self._starts = np.concatenate([[0], np.cumsum(count)])[:-1]
        self._total = int(count.sum())
        rows = [*(self._tie(*tie) for tie in uses.ties), *(self._same(*pair) for pair in pairs)]
        rank = np.repeat(self._first.rank, count)
        empty = csr_array((0, self._total))
        self._shares, free = solved(csr_array(vstack([empty, *rows], format="csr")), rank)
        self.sizes = np.repeat(np.where(self._apart, 1, sizes), count)[free]
        self._keyed = tuple(uses.made.items())
        self._once = _each_entry_once([use for _, use in self._keyed], pairs)

    def cells(self) -> list[Cells]:
        """What the parameters' entries do, share by share."""
        found = []
        for use in self._once:
            for share in use.shares:
                shape, places, at = self._places(use, share)
                vector = share.vector if at is None else ()
                shares = self._moved(places, at)
                if shares.nnz:
                    found.append(Cells(use.view, shape, shares, vector, share.still))
        return found

    def numbers(self, free: Numbers, bases: Bases) -> Columns:
        """What free unknowns that are numbers do to the parameters' entries."""
        found = []
        for key, use in self._keyed:
            for i, share in enumerate(use.shares):
                small = compressed(share.labels)
                base = _base(bases, (key, i), use.view.size)
                unknowns, at = small.reshape(-1).numpy(), None
                if share.vector:
                    length = int(np.prod([use.view.shape[axis] for axis in share.vector]))
                    if not self._is_apart(small) or unknowns.size * length > _MOST:
                        continue
                    unknowns, at = np.repeat(unknowns, length), np.tile(np.arange(length), unknowns.size)
                found.append((base, self._moved(unknowns, at)))
        return _chosen(found, free)

    def places(self, free: Numbers, bases: Bases) -> Columns:
        """What free vectors do to the parameters, at every place alike: the entries of one place stand for all."""
        found = []
        for key, use in self._keyed:
            for i, share in enumerate(use.shares):
                if share.vector:
                    base = _base(bases, (key, i), use.view.size)
                    found.append((base, self._moved(compressed(share.labels).reshape(-1).numpy(), None)))
        return _chosen(found, free)

    def alike(self, free: Numbers, bases: Bases) -> Columns:
        """What free vectors do to the tables that are looked up if all their numbers are equal: as numbers would."""
        found = []
        for key, use in self._keyed:
            if len(use.shares) == 2:
                base = _base(bases, (key, 0), use.view.size)
                found.append((base, self._moved(compressed(use.shares[1].labels).reshape(-1).numpy(), None)))
        return _chosen(found, free)

    def _moved(self, unknowns: Numbers, at: Numbers | None) -> csr_array:
        return csr_array(self._rows(unknowns, at, np.arange(unknowns.size), unknowns.size) @ self._shares)

    def _places(self, use: Use, share: Share) -> tuple[tuple[int, ...], Numbers, Numbers | None]:
        """Shape of the cells, their unknowns (flat), and the place in a vector that is taken apart."""
        labels = self._classes(share.labels)
        small = compressed(labels)
        if not share.vector or not self._is_apart(small):
            return tuple(small.shape), small.reshape(-1).numpy(), None
        shape = tuple(
            use.view.shape[axis] if axis in share.vector else n for axis, n in enumerate(small.shape)
        )
        at = _place(use.view, share.vector)
        small, at = small.expand(shape), compressed(at).expand(shape)
        return shape, small.reshape(-1).numpy(), at.reshape(-1).numpy()

    def _classes(self, labels: Tensor) -> Tensor:
        """Unknowns, one for all that are the same combination."""
        small = compressed(labels)
        unknowns, inverse = np.unique(small.reshape(-1).numpy(), return_inverse=True)
        prints = fingerprints(self._first.of(unknowns))
        _, first, which = np.unique(prints, axis=0, return_index=True, return_inverse=True)
        stands = unknowns[first][which.reshape(-1)]
        classes = torch.from_numpy(stands[inverse.reshape(-1)]).reshape(small.shape)
        return equal_as_one(classes).expand(labels.shape)

    def _is_apart(self, labels: Tensor) -> bool:
        rows = self._first.of(labels.reshape(-1).numpy())
        return bool(self._apart[rows.indices].any())

    def _taken_apart(self, uses: Uses, pairs: Sequence[tuple[Use, Use]]) -> np.ndarray:
        """Which of the free vectors are looked at number by number: those that anything else is said of."""
        first = self._first
        apart = np.zeros(len(first.sizes), dtype=bool)
        groups = [first.of(vectors.numpy()) for vectors, _ in uses.ties]
        groups += [
            first.of(compressed(share.labels).reshape(-1).numpy())
            for pair in pairs
            for use in pair
            for share in use.shares
            if share.vector
        ]
        for rows in groups:
            apart[rows.indices] = True
        everything = [
            first.of(np.unique(compressed(share.labels).numpy()))
            for use in uses.made.values()
            for share in use.shares
            if share.vector
        ]
        changed = True
        while changed:
            before = int(apart.sum())
            for rows in everything:
                of_row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
                touched = np.zeros(rows.shape[0], dtype=bool)
                touched[of_row[apart[rows.indices]]] = True
                apart[rows.indices[touched[of_row]]] = True
            changed = int(apart.sum()) > before
        return apart & (first.sizes > 1)

    def _rows(
        self, unknowns: Numbers, at: Numbers | None, into: Numbers, count: int, sign: float = 1.0
    ) -> csr_array:
        """Rows over the numbers: what the unknowns are at places of their vectors; into which row each goes."""
        shares = self._first.of(unknowns)
        of_row = np.repeat(np.arange(len(unknowns)), np.diff(shares.indptr))
        columns = self._starts[shares.indices]
        if at is not None:
            columns = columns + np.where(self._apart[shares.indices], at[of_row], 0)
        return csr_array(
            coo_array((sign * shares.data, (into[of_row], columns)), shape=(count, self._total)).tocsr()
        )

    def _tie(self, vectors: Tensor, numbers: Tensor) -> csr_array:
        """Each vector is its numbers."""
        m, k = numbers.shape
        rows = np.arange(m * k)
        of_vectors = self._rows(np.repeat(vectors.numpy(), k), np.tile(np.arange(k), m), rows, m * k)
        return csr_array(of_vectors - self._rows(numbers.reshape(-1).numpy(), None, rows, m * k))

    def _same(self, one: Use, other: Use) -> csr_array:
        """Two uses say the same of every entry that both have."""
        uses = _in_order(one), _in_order(other)
        pieces = []
        if uses[0].view == uses[1].view:
            shape = [1] * len(uses[0].view.shape)
            for use, sign in zip(uses, (1.0, -1.0), strict=True):
                for share in use.shares:
                    own, unknowns, at = self._places(use, share)
                    shape = [max(n, m) for n, m in zip(shape, own, strict=True)]
                    pieces.append((own, unknowns, at, sign))
        else:
            apart = _has_vectors(one) and _has_vectors(other) and not _same_entries(one.view, other.view)
            if apart or max(use.view.size for use in uses) > _MOST:
                return self._nothing(one, other)
            entries = np.intersect1d(_entries(uses[0].view), _entries(uses[1].view))
            shape = [entries.size]
            for use, sign in zip(uses, (1.0, -1.0), strict=True):
                order = np.argsort(_entries(use.view))
                where = order[np.searchsorted(_entries(use.view)[order], entries)]
                for share in use.shares:
                    unknowns = share.labels.reshape(-1).numpy()[where]
                    at = _place(use.view, share.vector).reshape(-1).numpy()[where]
                    pieces.append(((entries.size,), unknowns, at, sign))
        count = int(np.prod(shape))
        if count > _MOST:
            return self._nothing(one, other)
        total = csr_array((count, self._total))
        for own, unknowns, at, sign in pieces:
            where = np.broadcast_to(np.arange(unknowns.size).reshape(own), shape).reshape(-1)
            total = total + self._rows(
                unknowns[where], None if at is None else at[where], np.arange(count), count, sign
            )
        return csr_array(total)

    def _nothing(self, *uses: Use) -> csr_array:
        """None of them shifts anything."""
        rows = []
        for use in uses:
            for share in use.shares:
                _, unknowns, at = self._places(use, share)
                rows.append(self._rows(unknowns, at, np.arange(unknowns.size), unknowns.size))
        return csr_array(vstack([csr_array((0, self._total)), *rows], format="csr"))


def _base(bases: Bases, share: object, size: int) -> int:
    if share not in bases:
        bases[share] = bases.get("next", 0)
        bases["next"] = bases[share] + size
    return bases[share]


def _chosen(found: Sequence[tuple[int, csr_array]], free: Numbers) -> Columns:
    entries, columns, values = [], [], []
    for base, shares in found:
        own = coo_array(shares[:, free])
        entries.append(own.row + base)
        columns.append(own.col)
        values.append(own.data)
    empty = np.empty(0, dtype=np.int64)
    return Columns(
        np.concatenate([empty, *entries]),
        np.concatenate([empty, *columns]),
        np.concatenate([np.empty(0), *values]),
        free.size,
    )


def _place(view: View, axes: Sequence[int]) -> Tensor:
    """The place of a view's entries in a vector along some axes, in their order."""
    at = torch.zeros((), dtype=torch.int64)
    for axis in axes:
        shape = [1] * len(view.shape)
        shape[axis] = -1
        at = at * view.shape[axis] + torch.arange(view.shape[axis]).reshape(shape)
    return at.expand(view.shape)


def _in_order(use: Use) -> Use:
    """With the axes as the parameter lies in memory."""
    view = use.view
    order = sorted(range(len(view.shape)), key=lambda axis: (-view.strides[axis], axis))
    turned = View(
        view.parameter,
        tuple(view.shape[axis] for axis in order),
        tuple(view.strides[axis] for axis in order),
        view.offset,
    )
    shares = tuple(
        Share(share.labels.permute(order), tuple(order.index(axis) for axis in share.vector), share.still)
        for share in use.shares
    )
    return Use(turned, shares)


def _has_vectors(use: Use) -> bool:
    return any(share.vector for share in use.shares)


def _each_entry_once(uses: Sequence[Use], pairs: Sequence[tuple[Use, Use]]) -> list[Use]:
    """The uses without the entries that an earlier one has: what several say alike is done once."""
    order = [*(use for use in uses if _has_vectors(use)), *(use for use in uses if not _has_vectors(use))]
    place = {id(use): i for i, use in enumerate(order)}
    before: dict[int, list[Use]] = defaultdict(list)
    for pair in pairs:
        first, second = sorted(pair, key=lambda use: place[id(use)])
        if first.shares:
            before[id(second)].append(first)
    found = []
    for use in order:
        earlier = before[id(use)]
        if any(_same_entries(use.view, other.view) for other in earlier):
            continue
        if earlier and not _has_vectors(use):  # of vectors, which may not shift then, all may stay
            taken = torch.zeros(max(one.view.extent.stop for one in (use, *earlier)), dtype=torch.bool)
            for other in earlier:
                other.view.of(taken)[...] = True
            left = ~use.view.of(taken)
            shares = [torch.where(left, share.labels, ZERO) for share in use.shares]
            use = Use(use.view, tuple(map(Share, shares)))
        found.append(use)
    return found


def _same_entries(one: View, other: View) -> bool:
    if one.size != other.size or one.extent != other.extent:
        return False
    if one == other or one.size == one.extent.stop - one.extent.start:  # without gaps
        return True
    return one.size <= _MOST and np.array_equal(np.sort(_entries(one)), np.sort(_entries(other)))


def _entries(view: View) -> Numbers:
    return np.asarray(view.entries.reshape(-1).numpy())
