"""Contractions over coordinates: of a vector with a weight's columns, or with another vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nm_ode.symmetries.labels import NONE, compressed
from nm_ode.symmetries.operations.contractions import Letters
from nm_ode.symmetries.rules.matrix.conditions import Conditions
from nm_ode.symmetries.rules.matrix.coordinates import Labels, varies


@dataclass(frozen=True, eq=False)
class Lettered:
    """Labels of a factor of a contraction, its dimensions named by letters."""

    labels: Labels
    letters: Letters

    def arranged(self, order: Letters, sizes: Mapping[str, int]) -> Labels:
        """With a dimension for each letter of `order`, of stride 0 where there is none of that name."""
        return Labels(
            arranged(self.labels.coordinates, self.letters, order, sizes),
            arranged(self.labels.fibres, self.letters, order, sizes),
        )

    def letters_of_coordinates(self) -> set[str]:
        """Letters along which there are several coordinates."""
        return {self.letters[dim] for dim in varies(self.labels.coordinates)}


def arranged(labels: Tensor, letters: Letters, order: Letters, sizes: Mapping[str, int]) -> Tensor:
    """Dimensions in another order; those not in `order` must be of size one."""
    for dim in reversed(range(labels.ndim)):
        if letters[dim] not in order or not letters[dim]:
            labels = labels.select(dim, 0)
    have = [c for c in letters if c and c in order]
    labels = labels.permute([have.index(c) for c in order if c in have])
    for dim, c in enumerate(order):
        if c not in have:
            labels = labels.unsqueeze(dim)
    return labels.expand([sizes[c] if c else 1 for c in order])


def bond(
    conditions: Conditions, a: Lettered, b: Lettered, batch: Letters, over: Letters, sizes: Mapping[str, int]
) -> None:
    """Σ over `over` of the products of coordinates: the one's go with M, the other's with M⁻ᵀ, or none is mixed."""
    sides = []
    for one in (a, b):
        free = tuple(c for c in one.letters if c and c not in batch and c not in over)
        labels = one.arranged((*batch, *over, *free), sizes)
        kept = tuple(range(len(batch) + len(over)))
        coordinates = conditions.merge(labels.coordinates, kept)
        groups = _groups(one.arranged((*batch, *free, *over), sizes).fibres, len(batch), len(over))
        if groups is None:
            conditions.forbid(a.labels)
            conditions.forbid(b.labels)
            return
        sides += [coordinates.flatten(len(batch)), groups]
    rows = torch.stack([part.reshape(-1, part.shape[-1]) for part in _without_equal_rows(sides)], dim=1)
    for row in rows.unique(dim=0):
        _bonded(conditions, *row)


def _without_equal_rows(parts: list[Tensor]) -> list[Tensor]:
    """Broadcast to one shape, but of dimensions along which none differs one row."""
    small = [compressed(part, (part.ndim - 1,)) for part in torch.broadcast_tensors(*parts)]
    return list(torch.broadcast_tensors(*small))


def _groups(fibres: Tensor, batch: int, over: int) -> Tensor | None:
    """For each batch, of the entries summed over, the first that is of the same vector, whatever the free dimensions.

    None where that depends on the free dimensions.
    """
    dims = tuple(range(fibres.ndim - over, fibres.ndim))
    size = fibres[(0,) * (fibres.ndim - over)].numel()
    if not set(dims) & set(varies(fibres)):
        return torch.zeros((), dtype=torch.int64).expand((*fibres.shape[:batch], size))
    small = compressed(fibres, dims).flatten(fibres.ndim - over)
    free = tuple(range(batch, small.ndim - 1))
    first = small[(slice(None),) * batch + (0,) * len(free)]
    # The place of the first entry with the same number, by sorting.
    ordered, order = first.sort(stable=True, dim=-1)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    start = torch.where(new, torch.arange(size), 0).cummax(-1).values
    groups = torch.empty_like(order).scatter_(-1, order, order.gather(-1, start))
    index = groups.reshape(*groups.shape[:-1], *[1] * len(free), size).expand(small.shape)
    if not bool((small.gather(-1, index) == small).all()):
        return None
    return groups.expand((*fibres.shape[:batch], size))


def _bonded(conditions: Conditions, a: Tensor, of_a: Tensor, b: Tensor, of_b: Tensor) -> None:
    """One sum: coordinates of both factors, and for each the vector that it is of."""
    conditions.forbid(a[(a >= 0) & (b == NONE)])
    conditions.forbid(b[(b >= 0) & (a == NONE)])
    live = (a >= 0) & (b >= 0)
    if not bool(live.any()):
        return
    a, b = a[live], b[live]
    conditions.link(a, b, -1)
    vectors = torch.stack([of_a[live], of_b[live]], dim=1).unique(dim=0, return_inverse=True)[1]
    # Where a vector is read twice in one sum, each reading is a sum of its own.
    again = torch.zeros_like(vectors)
    order = torch.stack([vectors, a], dim=1).unique(dim=0, return_inverse=True)[1]
    sorted_, places = order.sort(stable=True, dim=0)
    new = torch.ones_like(sorted_, dtype=torch.bool)
    new[1:] = sorted_[1:] != sorted_[:-1]
    start = torch.where(new, torch.arange(len(sorted_)), 0).cummax(0).values
    again[places] = torch.arange(len(sorted_)) - start
    for number in (pairs := torch.stack([vectors, again], dim=1)).unique(dim=0):
        mine = (pairs == number).all(1)
        conditions.summed(a[mine])
        conditions.summed(b[mine])
