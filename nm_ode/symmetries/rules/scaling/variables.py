"""The linear system that factors obey: variables that are equal, and sums of others; and what it leaves free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nm_ode.symmetries.labels import compressed, compressed_together, distinct_pairs, one_for_each

ZERO = 0
"""The variable that is zero."""

_TINY = 1e-9  # of a coefficient: sums of a few small numbers that should cancel
_SWEEPS = 3  # of rows that are but equalities, before rows are taken one by one

Combination: TypeAlias = dict[int, float]


@dataclass(frozen=True, eq=False)
class Free:
    """The solution: every variable as a combination of free ones.

    Attributes:
        root: for each variable the one that stands for all that are equal to it.
        determined: such a variable → its combination of free ones; all others are free themselves, but for ZERO.
    """

    root: np.ndarray
    determined: dict[int, Combination]

    def of(self, variable: int) -> Combination:
        """Free variable → coefficient; none of a variable that is zero."""
        root = int(self.root[variable])
        if root == ZERO:
            return {}
        return self.determined.get(root, {root: 1.0})

    @property
    def free(self) -> np.ndarray:
        """The free variables."""
        roots = np.unique(self.root)
        return np.setdiff1d(roots, [ZERO, *self.determined])


class Variables:
    """The linear system: equalities in a forest, sums as rows."""

    def __init__(self) -> None:
        self.count = 1  # ZERO
        self._parent = np.arange(1024)
        self._edges: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []  # shape (n, 2k): coefficient, variable, …; each row is zero

    def copy(self) -> Variables:
        """The same system, which may be given further equations."""
        other = Variables()
        other.count, other._parent = self.count, self._parent.copy()
        other._edges, other._rows = list(self._edges), list(self._rows)
        return other

    def new(self, count: int) -> Tensor:
        made = torch.arange(self.count, self.count + count)
        self.count += count
        if self.count > len(self._parent):
            more = np.arange(len(self._parent), max(2 * len(self._parent), self.count))
            self._parent = np.concatenate([self._parent, more])
        return made

    def equal(self, a: Tensor, b: Tensor | int) -> None:
        """a = b entry by entry, broadcast."""
        pairs = distinct_pairs(a, torch.as_tensor(b))
        if len(pairs):
            self._edges.append(pairs)

    def zero(self, a: Tensor) -> None:
        self.equal(a, ZERO)

    def merge(self, labels: Tensor, keep: tuple[int, ...]) -> Tensor:
        """Entries equal along all dimensions but those kept; one of each, in the kept dimensions' shape."""
        keep = tuple(dim % labels.ndim for dim in keep)
        groups = one_for_each(compressed(labels), keep)
        if groups.shape[-1] > 1:
            self.equal(groups[..., 1:], groups[..., :1])
        return groups[..., 0].expand([labels.shape[dim] for dim in keep])

    def combine(self, *terms: tuple[float, Tensor]) -> Tensor:
        """New variables for a sum of terms, entry by entry, broadcast; existing ones where that is enough."""
        shape = torch.broadcast_shapes(*(v.shape for _, v in terms))
        left = [(c, v) for c, v in terms if c and not self.is_zero(v)]
        if not left:
            return torch.tensor(ZERO).expand(shape)
        if len(left) == 1 and left[0][0] == 1:
            return left[0][1].expand(shape)
        small = compressed_together(*(v for _, v in left))
        stacked = np.stack([self.root(v.reshape(-1).numpy()) for v in small], axis=1)
        distinct, inverse = np.unique(stacked, axis=0, return_inverse=True)
        made = self.new(len(distinct))
        coefficients = [c for c, _ in left]
        self.require(
            (-1.0, made), *((c, torch.from_numpy(distinct[:, i])) for i, c in enumerate(coefficients))
        )
        result = made[torch.from_numpy(inverse.reshape(-1))].reshape(small[0].shape)
        return result.expand(shape)

    def require(self, *terms: tuple[float, Tensor]) -> None:
        """Σ coefficient · variable = 0, entry by entry; vectors of one length."""
        row = [part for c, v in terms for part in (np.full(len(v), c), v.numpy())]
        if len(row[0]):
            self._rows.append(np.stack(row, axis=1))

    def root(self, variables: np.ndarray) -> np.ndarray:
        """For each variable the first of those that are known to be equal to it."""
        if self._edges:
            edges = np.concatenate(self._edges)
            self._edges.clear()
            self._join(edges)
        return self._found(variables)

    def _found(self, variables: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._parent[variables]
        while True:
            further = self._parent[found]
            if np.array_equal(further, found):
                break
            found = further
        self._parent[variables] = found
        return found

    def _join(self, edges: np.ndarray) -> None:
        nodes, number = np.unique(self._found(edges), return_inverse=True)
        a, b = number.reshape(-1, 2).T
        graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(nodes), len(nodes)))
        count, component = connected_components(graph, directed=False)
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, component, nodes)
        self._parent[nodes] = first[component]

    def is_zero(self, labels: Tensor) -> bool:
        """Are all known to be zero?"""
        return not self.root(compressed(labels).numpy()).any()

    def uniform(self, labels: Tensor, dim: int) -> bool:
        """Are the variables known to be equal along a dimension?"""
        small = compressed(labels)
        if small.shape[dim] <= 1:
            return True
        roots = self.root(small.numpy())
        return bool((roots == np.take(roots, [0], axis=dim)).all())

    def solve(self) -> Free:
        """Eliminate the sums; what no sum determines is free."""
        determined: dict[int, Combination] = {}
        for row in self._reduced_rows():
            left = _resolved(row, determined)
            if left:
                # Of two variables the later one follows from the earlier: a product from its factors.
                pivot = max(left)
                scale = -left.pop(pivot)
                determined[pivot] = {free: c / scale for free, c in left.items()}
        for variable in sorted(determined):  # made of earlier ones, which are resolved by then
            determined[variable] = _substituted(determined[variable], determined)
        return Free(self.root(np.arange(self.count)), determined)

    def _reduced_rows(self) -> Iterator[Combination]:
        """The rows in terms of roots, without repetition; those that are but equalities have become edges."""
        rows = self._rows
        for sweep in range(_SWEEPS):
            kept = []
            for given in rows:
                signed = given.copy()
                signed[:, 1::2] = self.root(given[:, 1::2].astype(np.int64))
                signed[:, ::2][signed[:, 1::2] == ZERO] = 0.0
                kept.append(np.unique(signed, axis=0))
            rows = kept
            if sweep == _SWEEPS - 1 or not self._equalities(rows):
                break
        for given in rows:
            for row in given.tolist():
                total: Combination = defaultdict(float)
                for coefficient, variable in zip(row[::2], row[1::2], strict=True):
                    total[int(variable)] += coefficient
                yield _nonzero(total)

    def _equalities(self, rows: list[np.ndarray]) -> bool:
        """Rows of one variable, and of two with opposite signs, are equalities."""
        found = False
        for given in rows:
            there = given[:, ::2] != 0
            for count in (1, 2):
                few = given[there.sum(1) == count]
                if len(few):
                    order = np.argsort(few[:, ::2] == 0, axis=1, kind="stable")[:, :count]
                    c = np.take_along_axis(few[:, ::2], order, axis=1)
                    v = np.take_along_axis(few[:, 1::2], order, axis=1).astype(np.int64)
                    if count == 1:
                        pairs = np.concatenate([v, np.zeros_like(v)], axis=1)
                    else:
                        pairs = v[(c.sum(1) == 0) & (v[:, 0] != v[:, 1])]
                    if len(pairs):
                        self._edges.append(pairs)
                        found = True
        return found


def _resolved(row: Combination, determined: dict[int, Combination]) -> Combination:
    """A row in terms of variables that nothing determines."""
    waiting = [variable for variable in row if variable in determined]
    while waiting:
        variable = waiting[-1]
        deeper = [v for v in determined[variable] if v in determined]
        unresolved = [v for v in deeper if any(w in determined for w in determined[v])]
        if unresolved:
            waiting += unresolved
            continue
        if deeper:
            determined[variable] = _substituted(determined[variable], determined)
        waiting.pop()
    return _substituted(row, determined)


def _substituted(row: Combination, determined: dict[int, Combination]) -> Combination:
    total: Combination = defaultdict(float)
    for variable, coefficient in row.items():
        if variable in determined:
            for free, share in determined[variable].items():
                total[free] += coefficient * share
        else:
            total[variable] += coefficient
    return _nonzero(total)


def _nonzero(row: Combination) -> Combination:
    return {variable: c for variable, c in row.items() if abs(c) > _TINY and variable != ZERO}
