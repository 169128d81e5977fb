"""The linear system that factors obey: variables that are equal, and sums of others; and what it leaves free."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nm_ode.symmetries.labels import compressed, distinct_pairs, one_for_each

ZERO = 0
"""The variable that is zero."""


@dataclass(frozen=True, eq=False)
class Free:
    """The solution: every variable as a combination of free ones.

    Attributes:
        count: number of free variables.
        rows: variable → list of (free variable, coefficient); a variable that is zero has none.
    """

    count: int
    rows: list[tuple[tuple[int, float], ...]]
    number: np.ndarray

    def of(self, variable: int) -> tuple[tuple[int, float], ...]:
        return self.rows[int(self.number[variable])]


class Variables:
    """The linear system: equalities kept as edges, sums as rows."""

    def __init__(self) -> None:
        self.count = 1  # ZERO
        self._edges: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []  # shape (n, 2k): coefficient, variable, …
        self._roots: np.ndarray | None = None

    def new(self, count: int) -> Tensor:
        made = torch.arange(self.count, self.count + count)
        self.count += count
        self._roots = None
        return made

    def equal(self, a: Tensor, b: Tensor | int) -> None:
        """a = b entry by entry, broadcast."""
        if isinstance(b, int):
            b = torch.tensor(b)
        pairs = _pairs(a, b)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if len(pairs):
            self._edges.append(pairs)
            self._roots = None

    def zero(self, a: Tensor) -> None:
        self.equal(a, ZERO)

    def merge(self, labels: Tensor, keep: tuple[int, ...]) -> Tensor:
        """Entries equal along all dimensions but those kept; one of each, in the kept dimensions' shape."""
        groups = one_for_each(labels, keep)
        if groups.shape[-1] > 1:
            self.equal(groups[..., 1:], groups[..., :1])
        return groups[..., 0]

    def combine(self, *terms: tuple[float, Tensor]) -> Tensor:
        """New variables for a sum of terms, entry by entry, broadcast; existing ones where that is enough."""
        terms = tuple((c, v) for c, v in terms if not bool((compressed(v) == ZERO).all()))
        if not terms:
            return torch.tensor(ZERO)
        if len(terms) == 1 and terms[0][0] == 1:
            return terms[0][1]
        labels = torch.broadcast_tensors(*(v for _, v in terms))
        small = torch.broadcast_tensors(*(compressed(v) for v in labels))
        stacked = torch.stack([v.reshape(-1) for v in small], dim=1).numpy()
        distinct, inverse = np.unique(stacked, axis=0, return_inverse=True)
        made = self.new(len(distinct)).numpy()
        row = [np.full(len(distinct), -1.0), made]
        for i, (coefficient, _) in enumerate(terms):
            row += [np.full(len(distinct), coefficient), distinct[:, i]]
        self._rows.append(np.stack(row, axis=1))
        result = torch.from_numpy(made[inverse.reshape(-1)]).reshape(small[0].shape)
        return result.expand(labels[0].shape)

    def roots(self) -> np.ndarray:
        """For each variable the number of its class of equal ones."""
        if self._roots is None:
            edges = np.concatenate(self._edges) if self._edges else np.empty((0, 2), dtype=np.int64)
            graph = coo_array(
                (np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(self.count, self.count)
            )
            self._roots = connected_components(graph, directed=False)[1]
        return self._roots

    def uniform(self, labels: Tensor, dim: int) -> bool:
        """Are the variables known to be equal along a dimension?"""
        small = compressed(labels)
        if small.shape[dim] == 1:
            return True
        roots = self.roots()[small.numpy()]
        return bool((roots == np.take(roots, [0], axis=dim)).all())

    def solve(self) -> Free:
        """Eliminate the sums; what no sum determines is free."""
        roots = self.roots()
        zero = int(roots[ZERO])
        determined: dict[int, dict[int, float]] = {zero: {}}
        for rows in self._rows:
            terms = [(rows[:, i], roots[rows[:, i + 1].astype(np.int64)]) for i in range(0, rows.shape[1], 2)]
            signature = np.stack([part for term in terms for part in term], axis=1)
            for row in np.unique(signature, axis=0):
                total: dict[int, float] = defaultdict(float)
                for coefficient, variable in zip(row[::2], row[1::2], strict=True):
                    for free, share in _reduced(int(variable), determined).items():
                        total[free] += coefficient * share
                left = {free: c for free, c in total.items() if abs(c) > 1e-9}
                if left:
                    # Of two variables the later one follows from the earlier: a product from its factors.
                    pivot = max(left)
                    scale = -left.pop(pivot)
                    determined[pivot] = {free: c / scale for free, c in left.items()}
        reduced = [_reduced(root, determined) for root in range(int(roots.max()) + 1)]
        names = {free: i for i, free in enumerate(sorted({free for row in reduced for free in row}))}
        return Free(
            len(names),
            [tuple((names[free], c) for free, c in row.items() if abs(c) > 1e-9) for row in reduced],
            roots,
        )


def _reduced(variable: int, determined: dict[int, dict[int, float]]) -> dict[int, float]:
    if variable not in determined:
        return {variable: 1.0}
    total: dict[int, float] = defaultdict(float)
    for earlier, coefficient in determined[variable].items():
        for free, share in _reduced(earlier, determined).items():
            total[free] += coefficient * share
    determined[variable] = dict(total)
    return determined[variable]


def _pairs(a: Tensor, b: Tensor) -> np.ndarray:
    a, b = torch.broadcast_tensors(a, b)
    small = torch.broadcast_tensors(compressed(a), compressed(b))
    return distinct_pairs(*(part.reshape(-1).numpy() for part in small))
