"""What is known of a tensor's entries: of which vector each is a coordinate, and of which of its coordinates.

A linear bottleneck makes vectors, and a mixing M acts on all of them alike: v → Mv. Every entry of a tensor that has
labels is a coordinate of such a vector. Two entries with the same fibre are coordinates of the very same vector; what
is done to a vector (a factor, a sum of several, a mean over tokens) makes another one, with a fibre of its own. So
an operation that treats coordinates of one vector differently takes them apart, by itself.

Fibres are numbers of 64 bits, made of those that they come from as a hash is: they never meet by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nm_ode.symmetries.labels import compressed

ZERO = -2
"""The coordinate of an entry that is zero: it is one of any vector."""

_LOW = (1 << 34) - 1


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of a tensor's entries, both int64 and of its shape, of stride 0 where nothing differs.

    Attributes:
        coordinates: a number for each row or column of a weight that is mixed; `NONE` for entries that stay as they
            are, `ZERO` for entries that are zero.
        fibres: which vector an entry is of.
    """

    coordinates: Tensor
    fibres: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.coordinates.shape)

    @property
    def live(self) -> bool:
        """Is any entry a coordinate?"""
        return bool((compressed(self.coordinates) >= 0).any())

    @property
    def zero(self) -> bool:
        """Are all entries zero?"""
        return bool((compressed(self.coordinates) == ZERO).all())

    def expand(self, shape: tuple[int, ...]) -> Labels:
        return Labels(self.coordinates.expand(shape), self.fibres.expand(shape))


def zeros(shape: tuple[int, ...]) -> Labels:
    """Labels of a tensor of zeros."""
    return one_vector(torch.full((), ZERO).expand(shape))


def one_vector(coordinates: Tensor) -> Labels:
    """Labels of entries that are coordinates of the same vector."""
    return Labels(coordinates, torch.zeros((), dtype=torch.int64).expand(coordinates.shape))


def varies(labels: Tensor) -> tuple[int, ...]:
    """Dimensions along which labels are not all the same entry."""
    return tuple(d for d in range(labels.ndim) if labels.shape[d] > 1 and labels.stride(d) != 0)


def settled(labels: Tensor) -> Tensor:
    """With stride 0 along each dimension in which all are equal, which a copy has lost."""
    shape = tuple(labels.shape)
    for dim in varies(labels):
        first = labels.narrow(dim, 0, 1)
        if bool((labels == first).all()):
            labels = first.expand(shape)
    return labels


def numbered(shape: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
    """A number for each place along some dimensions, the same along all others."""
    numbers = torch.zeros((), dtype=torch.int64)
    count = 1
    for dim in reversed(dims):
        along = torch.arange(shape[dim]) * count
        numbers = numbers + along.reshape([-1 if d == dim else 1 for d in range(len(shape))])
        count *= shape[dim]
    return numbers.expand(shape)


def together(salt: int, *fibres: Tensor) -> Tensor:
    """A fibre for each combination of several, entry by entry, broadcast."""
    shape = torch.broadcast_shapes(*(part.shape for part in fibres))
    small = [compressed(part.expand(shape)) for part in fibres]
    found = torch.full((), salt + 1, dtype=torch.int64)
    for part in small:
        found = _hash(found + _hash(part))
    return found.expand(shape)


def folded(fibres: Tensor, dims: tuple[int, ...]) -> Tensor:
    """One fibre for all along some dimensions, which keep the size 1: of what is put together of them."""
    small = compressed(fibres)
    places = numbered(tuple(small.shape), dims)
    mixed = _hash(_hash(small) + _hash(places))
    for dim in dims:
        mixed = mixed.sum(dim, keepdim=True)
    kept = [1 if dim in dims else n for dim, n in enumerate(fibres.shape)]
    return mixed.expand(kept)


def _hash(numbers: Tensor) -> Tensor:
    """One to one (the finaliser of splitmix64); products wrap."""
    numbers = numbers + -7046029254386353131
    numbers = (numbers ^ ((numbers >> 30) & _LOW)) * -4658895280553007687
    numbers = (numbers ^ ((numbers >> 27) & (_LOW << 3 | 7))) * -7723592293110705685
    return numbers ^ ((numbers >> 31) & (_LOW >> 1))
