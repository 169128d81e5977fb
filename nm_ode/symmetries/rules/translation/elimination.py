"""Solving a homogeneous linear system with few entries a row: every unknown as a combination of those left free.

What is common (unknowns that are zero, that are equal, that stand in one equation alone) is done for all rows at once;
only the rest is eliminated one by one. Of an equation's unknowns the one that is eliminated is the last in rank, so
that the free ones are those that a reader meets first.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

_TINY = 1e-9  # a coefficient below this is rounding: coefficients are small numbers of a model's own


def solved(rows: csr_array, rank: Numbers) -> tuple[csr_array, Numbers]:
    """The unknowns (n) as combinations of free ones: shape (n, free), and which of the unknowns the free ones are.

    Args:
        rows: shape (equations, n); each is zero.
        rank: shape (n,); of the unknowns of an equation the one of the highest rank is eliminated.
    """
    n = rows.shape[1]
    basis = csr_array(eye_array(n))
    rows = _clean(rows)
    while rows.shape[0]:
        step = _plain_step(rows, rank)
        if step is None:
            step = _core(rows, rank)
        basis = csr_array(basis @ step)
        rows = _clean(csr_array(rows @ step))
    basis = _clean_entries(basis)
    free = np.flatnonzero(np.diff(basis.tocsc().indptr))
    return csr_array(basis[:, free]), free


def _clean_entries(matrix: csr_array) -> csr_array:
    matrix.data[np.abs(matrix.data) < _TINY] = 0
    matrix.eliminate_zeros()
    return matrix


def _clean(rows: csr_array) -> csr_array:
    """Without what is zero, and without repetition; each divided by its first coefficient."""
    rows = _clean_entries(csr_array(rows))
    rows.sort_indices()
    counts = np.diff(rows.indptr)
    rows, counts = csr_array(rows[counts > 0]), counts[counts > 0]
    if not rows.shape[0]:
        return rows
    rows.data = rows.data / np.repeat(rows.data[rows.indptr[:-1]], counts)
    return csr_array(rows[np.sort(np.unique(fingerprints(rows), axis=0, return_index=True)[1])])


def fingerprints(rows: csr_array) -> Array:
    """Two numbers for each row, shape (rows, 2): equal for equal rows, and, but for a miracle, for these alone."""
    random = np.random.default_rng(0).standard_normal((rows.shape[1], 2))
    return np.asarray(rows @ random)


def _plain_step(rows: csr_array, rank: Numbers) -> csr_array | None:
    """Whatever can be eliminated for many rows at once, as a matrix (n, n); None if there is nothing."""
    n, counts = rows.shape[1], np.diff(rows.indptr)
    alone = rows.indices[rows.indptr[:-1][counts == 1]]
    if alone.size:
        kept = np.ones(n)
        kept[alone] = 0
        return csr_array(diags_array(kept))
    first = rows.indptr[:-1][counts == 2]
    first = first[np.abs(rows.data[first] + rows.data[first + 1]) < _TINY] if first.size else first
    if first.size:
        pairs = rows.indices[first], rows.indices[first + 1]
        classes = connected_components(coo_array((np.ones(first.size), pairs), shape=(n, n)), directed=False)[
            1
        ]
        order = np.lexsort((np.arange(n), rank))  # of each class the first in rank stands for all
        stands = np.full(int(classes.max()) + 1, -1)
        stands[classes[order[::-1]]] = order[::-1]
        return csr_array((np.ones(n), (np.arange(n), stands[classes])), shape=(n, n))
    return _leaves(rows, rank)


def _leaves(rows: csr_array, rank: Numbers) -> csr_array | None:
    """Unknowns that stand in one equation alone follow from it."""
    n = rows.shape[1]
    uses = np.bincount(rows.indices, minlength=n)
    row_of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    leaf = np.flatnonzero(uses[rows.indices] == 1)
    if not leaf.size:
        return None
    order = leaf[np.lexsort((rows.indices[leaf], rank[rows.indices[leaf]], row_of[leaf]))]
    last = np.append(np.flatnonzero(np.diff(row_of[order])), order.size - 1)
    chosen = order[last]  # the last in rank of each row
    pivots, coefficients = rows.indices[chosen], rows.data[chosen]
    share = np.zeros(rows.shape[0])
    share[row_of[chosen]] = -1 / coefficients
    column = np.zeros(rows.shape[0], dtype=np.int64)
    column[row_of[chosen]] = pivots
    inside = (share[row_of] != 0) & (column[row_of] != rows.indices)
    kept = np.ones(n)
    kept[pivots] = 0
    ones = np.flatnonzero(kept)
    return csr_array(
        (
            np.concatenate([np.ones(ones.size), rows.data[inside] * share[row_of[inside]]]),
            (
                np.concatenate([ones, column[row_of[inside]]]),
                np.concatenate([ones, rows.indices[inside]]),
            ),
        ),
        shape=(n, n),
    )


def _core(rows: csr_array, rank: Numbers) -> csr_array:
    """What is left, one equation after the other."""
    n = rows.shape[1]
    determined: dict[int, dict[int, float]] = {}

    def reduced(unknown: int) -> dict[int, float]:
        if unknown not in determined:
            return {unknown: 1.0}
        total: dict[int, float] = defaultdict(float)
        for other, coefficient in determined[unknown].items():
            for free, share in reduced(other).items():
                total[free] += coefficient * share
        determined[unknown] = {free: c for free, c in total.items() if abs(c) > _TINY}
        return determined[unknown]

    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        total: dict[int, float] = defaultdict(float)
        for unknown, coefficient in zip(rows.indices[start:stop], rows.data[start:stop], strict=True):
            for free, share in reduced(int(unknown)).items():
                total[free] += float(coefficient) * share
        left = {free: c for free, c in total.items() if abs(c) > _TINY}
        if left:
            pivot = max(left, key=lambda unknown: (rank[unknown], unknown))
            scale = -left.pop(pivot)
            determined[pivot] = {free: c / scale for free, c in left.items()}
    data, places, columns = [], [], []
    for unknown in range(n):
        for free, share in reduced(unknown).items():
            data.append(share)
            places.append(unknown)
            columns.append(free)
    return csr_array((np.array(data, dtype=float), (places, columns)), shape=(n, n))


def independent(columns: csr_array, given: int) -> Numbers:
    """Of the columns, in their order, those that are no combination of earlier ones, without the first `given`."""
    plain = _with_rows_of_their_own(columns)
    rest = np.flatnonzero(~plain)
    kept = rest[_greedy(csr_array(columns[:, rest]))]
    found = np.sort(np.concatenate([np.flatnonzero(plain), kept]))
    return found[found >= given] - given


def _with_rows_of_their_own(columns: csr_array) -> NDArray[np.bool_]:
    """Columns that are no combination of others since no other has one of their rows; nor are they needed for any."""
    entries = coo_array(columns)
    row, column = entries.row, entries.col
    found = np.zeros(columns.shape[1], dtype=bool)
    while row.size:
        uses = np.bincount(row)
        own = np.unique(column[uses[row] == 1])
        if not own.size:
            break
        found[own] = True
        left = ~found[column]
        row, column = row[left], column[left]
    return found


def _greedy(matrix: csr_array) -> Numbers:
    columns = matrix.tocsc()
    columns.sort_indices()
    pivots: list[tuple[int, Numbers, Array]] = []
    pivot_rows = np.empty(0, dtype=np.int64)
    dense = np.zeros(columns.shape[0])
    found: list[int] = []
    for j in range(columns.shape[1]):
        own = slice(columns.indptr[j], columns.indptr[j + 1])
        dense[columns.indices[own]] = columns.data[own]
        touched = [columns.indices[own]]
        while pivot_rows.size:
            hit = np.flatnonzero(np.abs(dense[pivot_rows]) > _TINY)
            if not hit.size:
                break
            row, places, values = pivots[int(hit[0])]
            dense[places] -= dense[row] * values
            dense[row] = 0
            touched.append(places)
        seen = np.unique(np.concatenate(touched))
        left = seen[np.abs(dense[seen]) > _TINY]
        if left.size:
            row = int(left[-1])
            pivots.append((row, left, dense[left] / dense[row]))
            pivot_rows = np.append(pivot_rows, row)
            found.append(j)
        dense[seen] = 0
    return np.array(found, dtype=np.int64)
