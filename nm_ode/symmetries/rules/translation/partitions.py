"""Labels as partitions: entries of one label may be shifted together, entries without one may not be shifted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nm_ode.symmetries.labels import NONE, distinct_pairs


def join(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """What both allow: entries that either ties are tied, what either forbids is forbidden. None: nothing."""
    if one is None or other is None:
        return None
    a, b = one.reshape(-1).numpy(), other.reshape(-1).numpy()
    shift = int(a.max(initial=0)) + 2
    # Node 0 is the forbidden one; then the labels of the one, then those of the other.
    left, right = np.where(a == NONE, 0, a + 1), np.where(b == NONE, 0, b + shift)
    classes = _components(left, right)
    joined = classes[left]
    joined = np.where(joined == classes[0], NONE, joined)
    return None if (joined == NONE).all() else torch.from_numpy(joined.astype(np.int64)).reshape(one.shape)


def collect(went: Tensor, labels: Tensor, size: int) -> Tensor:
    """Labels of `size` entries of which entry i is seen wherever `went == i`, under `labels` there.

    An entry seen under several labels ties them; one that is never seen may be shifted alone.
    """
    entries, seen = went.reshape(-1).numpy(), labels.reshape(-1).numpy()
    inside = entries >= 0
    entries, seen = entries[inside], seen[inside]
    # Node 0 is the forbidden one; then the entries; then the labels.
    shift = size + 1
    right = np.where(seen == NONE, 0, seen + shift)
    classes = _components(entries + 1, right, at_least=shift)
    found = classes[1 : size + 1]
    return torch.from_numpy(np.where(found == classes[0], NONE, found).astype(np.int64))


def _components(left: np.ndarray, right: np.ndarray, at_least: int = 0) -> np.ndarray:
    """Class of each node of the graph with edges left[i] – right[i]."""
    edges = distinct_pairs(left, right)
    size = max(int(edges.max(initial=0)) + 1, at_least)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1])


def per_row(labels: Tensor | None) -> Tensor | None:
    """Partition of the last axis that holds in every row; −1 where a label reaches over rows or a row differs.

    labels (…, N) → (N,): outputs n and n' of equal number may be shifted together, by another amount in each row.
    """
    if labels is None:
        return None
    rows = labels.reshape(-1, labels.shape[-1]).numpy()
    place = np.arange(rows.size).reshape(rows.shape)
    first_place = np.full(int(rows.max(initial=0)) + 2, rows.size, dtype=np.int64)
    last_place = np.full_like(first_place, -1)
    np.minimum.at(first_place, rows + 1, place)
    np.maximum.at(last_place, rows + 1, place)
    # A class of labels must begin and end in the same row.
    confined = first_place // rows.shape[1] == last_place // rows.shape[1]
    pattern = np.where((rows != NONE) & confined[rows + 1], first_place[rows + 1] % rows.shape[1], NONE)
    same = (pattern == pattern[:1]).all(axis=0)
    # A class is lost as a whole where any of its members differs between rows.
    lost = set(pattern[0][~same].tolist()) | set(pattern[:, ~same].reshape(-1).tolist())
    result = np.where(np.isin(pattern[0], sorted(lost)), NONE, pattern[0])
    return None if (result == NONE).all() else torch.from_numpy(result)


def tied_along(shape: Sequence[int], tied: Sequence[int]) -> Tensor:
    """Labels that are equal along the `tied` dimensions and differ along the others."""
    tied = [dim % len(shape) for dim in tied]
    free = [1 if dim in tied else n for dim, n in enumerate(shape)]
    return torch.arange(int(np.prod(free))).reshape(free).expand(tuple(shape)).contiguous()
