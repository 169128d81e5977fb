"""How a tensor shifts: for every entry a sum of unknowns, each times a row of numbers that the batch says.

A term says of each entry which unknown, and times which row: of y = x Wᵀ at sample b the row is x[b], the unknown of
y[b, n] the shift of W's row n. Unknown and row are vectors of one size, and what is added is their product. Where the
row is the number 1 the shift is the same for every batch. Unknowns and rows are numbered by integer tensors of the
tensor's shape, expanded (stride 0) wherever they do not vary: a layer's labels cost as much as its bias and its batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from nm_ode.symmetries.labels import compressed, compressed_together, equal_as_one
from nm_ode.symmetries.rules.translation.system import ZERO, System, is_zero

ONE = "one"
"""The row that is the number 1 whatever the batch."""

MOST_ROWS = 1 << 20
"""Rows that may differ at every entry of a result: then only what is put together later can use them."""

_MOST = 1 << 20  # entries that are compared one by one
_SMALL = 1024  # entries up to which labels need not be looked at for dimensions along which they are equal


@dataclass(frozen=True, eq=False)
class Term:
    """unknown · row for every entry.

    Attributes:
        row: what the rows are rows of; ONE for the number 1. Terms of one `row` and equal `rows` have equal rows.
        owner: the parameter that shifts, where parameters are looked at apart; else "".
        size: of unknown and row.
        rows: which row, shape of the tensor; int64.
        labels: which unknown, shape of the tensor; int64, ZERO where nothing shifts.
    """

    row: Hashable
    owner: str
    size: int
    rows: Tensor
    labels: Tensor

    @property
    def kind(self) -> tuple[Hashable, str, int]:
        return self.row, self.owner, self.size

    def expand(self, shape: Sequence[int]) -> Term:
        return replace(self, rows=self.rows.expand(tuple(shape)), labels=self.labels.expand(tuple(shape)))


Shift: TypeAlias = list[Term]
"""Of a tensor; empty where nothing shifts."""


def constant(labels: Tensor, owner: str) -> Term:
    """A shift that is the same for every batch."""
    return Term(ONE, owner, 1, same(labels.shape), labels)


def same(shape: Iterable[int]) -> Tensor:
    """One number for all entries."""
    return torch.zeros((), dtype=torch.int64).expand(tuple(shape))


def numbered(shape: Sequence[int], along: Iterable[int]) -> Tensor:
    """A number for each place along some dimensions, equal along the others."""
    along = set(along)
    sizes = [n if dim in along else 1 for dim, n in enumerate(shape)]
    return torch.arange(prod(sizes)).reshape(sizes).expand(tuple(shape))


def lean(labels: Tensor) -> Tensor:
    """Expanded (stride 0) along the dimensions in which all entries are equal."""
    small = compressed(labels)
    if small.numel() <= _SMALL:
        return labels
    return equal_as_one(small).contiguous().expand(labels.shape)


def varying(labels: Tensor) -> tuple[int, ...]:
    """Dimensions along which labels differ."""
    return tuple(dim for dim, n in enumerate(equal_as_one(labels).shape) if n > 1)


def equal_labels(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(*compressed_together(one, other))


def content(labels: Tensor) -> tuple[tuple[int, ...], int]:
    """Something that can be compared."""
    small = compressed(labels).contiguous()
    return tuple(small.shape), hash(small.numpy().tobytes())


def agree(system: System, term: Term, over: Iterable[int]) -> Term:
    """All along the dimensions `over` must shift alike: shape with a 1 there.

    Entries of different rows shift alike only where they do not shift.
    """
    ndim = term.labels.ndim
    over = sorted({dim % ndim for dim in over})
    if not set(varying(term.rows)) & set(over):
        rows, labels = first(term.rows, over), tied(system, term.labels, over)
        return replace(term, rows=rows, labels=labels)
    rows, labels = compressed_together(term.rows, term.labels)
    if labels.numel() > _MOST:  # that some of the groups have one row is not looked at
        system.zero(term.labels)
        rows, labels = same(rows.shape), same(rows.shape)
    inner = [dim for dim in over if labels.shape[dim] > 1]
    keep = [dim for dim in range(ndim) if dim not in inner]
    sizes = [labels.shape[dim] for dim in keep]
    r, v = (part.permute(*keep, *inner).reshape(*sizes, -1) for part in (rows, labels))
    differ = (r != r[..., :1]).any(-1, keepdim=True)
    one = torch.where(differ, ZERO, v[..., :1])
    system.equal(v, one)
    shape = [1 if dim in inner else labels.shape[dim] for dim in range(ndim)]
    rows, labels = r[..., 0].reshape(shape), one.reshape(shape)
    kept = [1 if dim in over else n for dim, n in enumerate(term.labels.shape)]
    return replace(term, rows=rows.expand(kept), labels=labels.expand(kept))


def first(labels: Tensor, over: Iterable[int]) -> Tensor:
    """Of equal entries along some dimensions one: shape with a 1 there."""
    for dim in over:
        labels = labels.narrow(dim, 0, 1)
    return labels


def tied(system: System, labels: Tensor, over: Iterable[int]) -> Tensor:
    """Equal unknowns along the dimensions `over`, whatever their rows: shape with a 1 there."""
    over = {dim % labels.ndim for dim in over}
    for dim in over:
        if labels.shape[dim] > 1:
            one = labels.narrow(dim, 0, 1)
            if labels.stride(dim) != 0:
                system.equal(labels, one)
            labels = one
    return labels


def forbid(system: System, shift: Iterable[Term]) -> None:
    """Nothing may shift."""
    for term in shift:
        system.zero(term.labels)


def added(system: System, shape: Sequence[int], *parts: tuple[float, Shift]) -> Shift:
    """Σ coefficient · shift, broadcast to a shape; terms of equal rows are one."""
    groups: list[list[tuple[float, Term]]] = []
    for coefficient, shift in parts:
        for term in shift:
            term = term.expand(shape)
            if is_zero(term.labels):
                continue
            for group in groups:
                like = group[0][1]
                if like.kind == term.kind and equal_labels(like.rows, term.rows):
                    group.append((coefficient, term))
                    break
            else:
                groups.append([(coefficient, term)])
    found = []
    for group in groups:
        like = group[0][1]
        labels = system.combine(like.size, *((c, term.labels) for c, term in group))
        if not is_zero(labels):
            found.append(replace(like, labels=labels))
    return found
