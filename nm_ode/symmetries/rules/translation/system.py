"""The linear system that shifts obey: unknowns that are equal, or sums of others; and what it leaves free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, vstack
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nm_ode.symmetries.labels import compressed, compressed_together, distinct_pairs
from nm_ode.symmetries.rules.translation.elimination import Numbers, solved

ZERO = 0
"""The unknown that is zero."""

SUM = 1 << 40
"""Rank of a sum's unknown: eliminated before any that is a parameter's."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Every unknown as a combination of free ones.

    Attributes:
        roots: unknown → its class.
        shares: shape (classes, free).
        sizes: of each free one how many numbers it is.
        rank: of each free one.
    """

    roots: Numbers
    shares: csr_array
    sizes: Numbers
    rank: Numbers

    def of(self, unknowns: Numbers) -> csr_array:
        """Rows of `shares`."""
        return csr_array(self.shares[self.roots[unknowns]])


class System:
    """Unknowns, each of them one number or a vector; equalities kept as edges, sums as rows."""

    def __init__(self) -> None:
        self.count = 1  # ZERO
        self._blocks: list[tuple[int, int, int]] = [(1, 1, -1)]  # how many, of how many numbers, rank
        self._edges: list[Numbers] = []
        self._sums: list[list[tuple[float, Numbers]]] = []

    def new(self, count: int, size: int = 1, rank: int = SUM) -> Tensor:
        """Unknowns of `size` numbers each."""
        made = torch.arange(self.count, self.count + count)
        self.count += count
        self._blocks.append((count, size, rank))
        return made

    def equal(self, a: Tensor, b: Tensor) -> None:
        """a = b entry by entry, broadcast."""
        pairs = distinct_pairs(a, b)
        if len(pairs):
            self._edges.append(pairs)

    def zero(self, a: Tensor) -> None:
        self.equal(a, torch.tensor(ZERO))

    def combine(self, size: int, *terms: tuple[float, Tensor]) -> Tensor:
        """A sum, entry by entry, broadcast; existing unknowns where that is enough."""
        kept = [(c, v) for c, v in terms if c and not is_zero(v)]
        shape = torch.broadcast_shapes(*(v.shape for _, v in terms))
        if not kept:
            return torch.tensor(ZERO).expand(shape)
        if len(kept) == 1 and kept[0][0] == 1:
            return kept[0][1].expand(shape)
        small = compressed_together(*(v for _, v in kept))
        stacked = torch.stack([v.reshape(-1) for v in small], dim=1).numpy()
        distinct, inverse = np.unique(stacked, axis=0, return_inverse=True)
        made = self.new(len(distinct), size).numpy()
        self._sums.append(
            [(-1.0, made), *((c, distinct[:, i].astype(np.int64)) for i, (c, _) in enumerate(kept))]
        )
        result = torch.from_numpy(made[inverse.reshape(-1)]).reshape(small[0].shape)
        return result.expand(shape)

    def roots(self) -> Numbers:
        """For each unknown the number of its class of equal ones."""
        edges = np.concatenate(self._edges) if self._edges else np.empty((0, 2), dtype=np.int64)
        graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(self.count, self.count))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)

    def solve(self) -> Solution:
        """What no equality and no sum determines is free."""
        roots = self.roots()
        count = int(roots.max()) + 1
        sizes, ranks = (
            np.repeat([block[i] for block in self._blocks], [block[0] for block in self._blocks])
            for i in (1, 2)
        )
        size, rank = np.ones(count, dtype=np.int64), np.full(count, SUM, dtype=np.int64)
        size[roots] = sizes
        np.minimum.at(rank, roots, ranks)
        rank[roots[ZERO]] = -1
        rows, made = self._equations(roots, count)
        rows, through = _without_single_sums(rows, made, roots, rank)
        shares, free = solved(rows, rank)
        if through is not None:
            shares = csr_array(through @ shares)
            used = np.flatnonzero(np.diff(shares.tocsc().indptr))
            shares, free = csr_array(shares[:, used]), free[used]
        return Solution(roots, shares, size[free], rank[free])

    def _equations(self, roots: Numbers, count: int) -> tuple[csr_array, Numbers]:
        """The sums as rows over classes, and the class that each row is the sum of."""
        pieces, made = [], []
        for terms in self._sums:
            length = len(terms[0][1])
            place = np.tile(np.arange(length), len(terms))
            data = np.repeat([c for c, _ in terms], length)
            pieces.append(
                coo_array(
                    (data, (place, roots[np.concatenate([v for _, v in terms])])), shape=(length, count)
                ).tocsr()
            )
            made.append(roots[terms[0][1]])
        zero = coo_array(([1.0], ([0], [roots[ZERO]])), shape=(1, count)).tocsr()
        rows = csr_array(vstack([*pieces, zero], format="csr"))
        return rows, np.concatenate([*made, [roots[ZERO]]])


def _without_single_sums(
    rows: csr_array, made: Numbers, roots: Numbers, rank: Numbers
) -> tuple[csr_array, csr_array | None]:
    """Put the sum in the place of an unknown that is nothing else; and the matrix that does so."""
    count = rows.shape[1]
    members = np.bincount(roots, minlength=count)
    single = (rank == SUM) & (members == 1)
    defining = single[made]
    if not defining.any():
        return rows, None
    # The row −u + Σ c v gives u.
    of = np.full(count, -1, dtype=np.int64)
    of[made[defining]] = np.flatnonzero(defining)
    definitions = csr_array(rows[defining])
    places = np.repeat(made[defining], np.diff(definitions.indptr))
    inside = definitions.indices != places
    plain = np.flatnonzero(of < 0)
    through = csr_array(
        (
            np.concatenate([np.ones(plain.size), definitions.data[inside]]),
            (np.concatenate([plain, places[inside]]), np.concatenate([plain, definitions.indices[inside]])),
        ),
        shape=(count, count),
    )
    while np.any(of[through.indices] >= 0):
        through = csr_array(through @ through)
    return csr_array(rows[~defining] @ through), through


def is_zero(labels: Tensor) -> bool:
    return not bool(compressed(labels).any())
