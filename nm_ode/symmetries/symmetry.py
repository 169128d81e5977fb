"""What a symmetry is: which entries of which parameters move together, as a few strided views.

Every symmetry here acts by a generator that is constant (translation) or linear in theta (scale, rescale,
matrix); its charges are sums over views of theta, vectorised over channels (docs/theory.md §2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from nm_ode.parameters import Parts, Vector


@dataclass(frozen=True)
class View:
    """A strided view of one parameter: `parameter.flatten().as_strided(shape, strides, offset)`."""

    parameter: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def extent(self) -> slice:
        """From the first to beyond the last of the parameter's entries in the view."""
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return slice(self.offset, last + 1)

    @property
    def entries(self) -> Tensor:
        """Places of its entries in the flattened parameter, in the view's shape; int64."""
        return self.of(torch.arange(self.extent.stop, device="cpu"))

    def of(self, vector: Vector, start: int = 0) -> Tensor:
        """The view of a vector of theta's size, in which, if it is flat, the parameter begins at `start`."""
        if isinstance(vector, Parts):
            flat, start = vector[self.parameter], 0
        else:
            flat = vector
        return flat.as_strided(self.shape, self.strides, flat.storage_offset() + start + self.offset)


Dims: TypeAlias = tuple[tuple[int, int], ...]
"""Sizes and strides."""


def joined(dims: Iterable[tuple[int, int]]) -> Dims:
    """The largest stride first, what lies contiguously as one, without those of size one."""
    found: list[tuple[int, int]] = []
    for n, stride in sorted(dims, key=lambda dim: -dim[1]):
        if n == 1:
            continue
        if found and found[-1][1] == n * stride:
            found[-1] = (found[-1][0] * n, stride)
        else:
            found.append((n, stride))
    return tuple(found)


def in_rows(dims: Dims) -> tuple[tuple[int, int], list[int]]:
    """The longest of joined dimensions, as size and stride, and where along the others its rows begin."""
    longest = max(dims, key=lambda dim: dim[0], default=(1, 1))
    others = [dim for dim in dims if dim is not longest]
    places = product(*(range(n) for n, _ in others))
    return longest, [
        sum(i * stride for i, (_, stride) in zip(place, others, strict=True)) for place in places
    ]


@dataclass(frozen=True, eq=False)
class Part:
    """One parameter's share in a symmetry.

    Attributes:
        view: the entries. For kind "matrix" of shape (blocks, d, rest): row i of block b is multiplied by M_b.
        axes: the channel axes of the view; one number for each channel is summed over the others.
        index: for each channel (axes flattened) the charge that it belongs to, −1 for none; int64.
        weight: +1 on the plus side, −1 on the minus side (other values where a channel enters by a power).

    Example:
        >>> import torch
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> found = nm_ode.find_symmetries(mlp([4, 6, 3], "relu"), torch.randn(8, 4), loss="cross_entropy")
        >>> [(part.parameter, part.axes, part.weight) for part in found.named("rescale linear1 → linear2").parts]
        [('linear1.weight', (0,), 1.0), ('linear1.bias', (0,), 1.0), ('linear2.weight', (1,), -1.0)]
    """

    view: View
    axes: tuple[int, ...]
    index: Tensor
    weight: float

    @property
    def parameter(self) -> str:
        """Its name."""
        return self.view.parameter

    @property
    def entries(self) -> Tensor:
        """Places of the entries that take part, in the flattened parameter; int64."""
        numbers = self.view.entries
        if len(self.axes) == 0 or bool((self.index >= 0).all()):
            return numbers.reshape(-1)
        shape = [n if dim in self.axes else 1 for dim, n in enumerate(self.view.shape)]
        return numbers[(self.index >= 0).reshape(shape).expand(self.view.shape)]

    def mark(self, takes_part: Tensor) -> None:
        """Set the entries that take part in a tensor of bools of the flattened parameter's shape."""
        view = self.view.of(takes_part)
        shape = [n if dim in self.axes else 1 for dim, n in enumerate(self.view.shape)]
        # Blocks have no axes: all of their entries take part, whatever their index says.
        view.logical_or_(
            (self.index >= 0).reshape(shape) if self.axes else torch.ones((), dtype=torch.bool, device="cpu")
        )


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Charges of one kind around the same parameters: one for each channel, or for each pair of coordinates.
    See docs/theory.md §2.1.

    Attributes:
        kind: a name in `KINDS`: translation, scale, rescale or matrix.
        name: unique in a model, made of its modules' names.
        count: number of charges: channels, or for a matrix symmetry d(d+1)/2 for each block (head), the distinct
            entries of W_A W_Aᵀ − W_Bᵀ W_B.
        parts: the parameters that take part.
        shapes: their shapes in the model in which the symmetry was found.
        epsilon: largest ε of the normalisations that absorb the transformation; it breaks the symmetry by a
            relative ε / variance. 0 where it is exact.
        within: name of the symmetry whose diagonal these charges are, if any.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> found = nm_ode.find_symmetries(mlp([4, 6, 3], "relu"), torch.randn(8, 4), loss="cross_entropy")
        >>> rescale = found.named("rescale linear1 → linear2")
        >>> rescale.kind, rescale.count, rescale.parameters
        ('rescale', 6, ('linear1.weight', 'linear1.bias', 'linear2.weight'))
    """

    kind: str
    name: str
    count: int
    parts: tuple[Part, ...]
    shapes: dict[str, tuple[int, ...]]
    epsilon: float = 0.0
    within: str | None = None

    @property
    def plus(self) -> tuple[Part, ...]:
        """Parts that are multiplied by α (or M, or have α added)."""
        return tuple(part for part in self.parts if part.weight > 0)

    @property
    def minus(self) -> tuple[Part, ...]:
        """Parts that are multiplied by 1/α (or M⁻¹)."""
        return tuple(part for part in self.parts if part.weight < 0)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take part."""
        return tuple(dict.fromkeys(part.parameter for part in self.parts))

    def __repr__(self) -> str:
        sides = " | ".join(
            ", ".join(f"{part.parameter}{_where(part)}" for part in side)
            for side in (self.plus, self.minus)
            if side
        )
        return f"<{self.name}: {self.count} charges of {sides}>"


def _where(part: Part) -> str:
    return f" axis {','.join(map(str, part.axes))}" if part.axes else ""


def count_charges(symmetries: Iterable[Symmetry], kind: str | None = None) -> int:
    """Number of charges, those that are another symmetry's diagonal not counted twice."""
    return sum(s.count for s in symmetries if s.within is None and kind in (None, s.kind))


def whole(parameter: str, shape: Iterable[int]) -> View:
    """All of a contiguous parameter."""
    sizes = tuple(shape)
    strides = tuple(torch.empty(sizes, device="meta").stride())
    return View(parameter, sizes, strides)
