"""What readers ask of a pass, and what they get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from torch import Tensor

from nm_ode.parameters import Vector

Pair: TypeAlias = tuple[str, str]
"""Names of two vectors, whose entries are multiplied."""


class Strided(Protocol):
    """A view of one parameter, as symmetries have it."""

    @property
    def parameter(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def offset(self) -> int: ...

    @property
    def size(self) -> int: ...

    def of(self, vector: Vector, start: int = 0) -> Tensor:
        """The view of a vector of theta's size, in which, if it is flat, the parameter begins at `start`."""
        ...


@dataclass(frozen=True)
class Sum:
    """Σ u·v over a view of a parameter, but for the axes that are kept; their sizes flattened are its shape."""

    pair: Pair
    view: Strided
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Wanted:
    """What a reader needs of one pass.

    Attributes:
        totals: pairs of which ⟨u, v⟩ is wanted of every parameter.
        sums: over views.
        copies: names of vectors that are copied, and the copies' own names.
        digests: names of vectors of whose bits a digest is wanted, where a kernel makes the sums.
    """

    totals: frozenset[Pair] = frozenset()
    sums: frozenset[Sum] = frozenset()
    copies: frozenset[Pair] = frozenset()
    digests: frozenset[str] = frozenset()

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(
            self.totals | other.totals,
            self.sums | other.sums,
            self.copies | other.copies,
            self.digests | other.digests,
        )

    @property
    def names(self) -> list[str]:
        """Of all vectors that are read or written."""
        pairs = [*self.totals, *(one.pair for one in self.sums), *self.copies]
        return sorted({name for pair in pairs for name in pair} | self.digests)

    def renamed(self, names: Mapping[str, str]) -> Wanted:
        """The same sums of vectors with other names; nothing is copied."""
        pairs = {pair: (names[pair[0]], names[pair[1]]) for pair in self.pairs}
        return Wanted(
            frozenset(pairs[pair] for pair in self.totals),
            frozenset(replace(one, pair=pairs[one.pair]) for one in self.sums),
        )

    @property
    def pairs(self) -> set[Pair]:
        """Of which sums are wanted."""
        return {*self.totals, *(one.pair for one in self.sums)}


def totals(*pairs: Pair) -> Wanted:
    """⟨u, v⟩ of every parameter."""
    return Wanted(totals=frozenset(pairs))


@dataclass(frozen=True, eq=False)
class Found:
    """What a pass gives, in float64 on the device of the vectors.

    Attributes:
        totals: shape (slots,) for each pair.
        sums: as asked for.
        digests: by parameter and vector.
    """

    totals: Mapping[Pair, Tensor]
    sums: Mapping[Sum, Tensor]
    digests: Mapping[tuple[str, str], int] = field(default_factory=dict)
