"""What is known of the coordinates of linear bottlenecks once the graph has been traversed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nm_ode.symmetries.symmetry import View


@dataclass(frozen=True, eq=False)
class Producer:
    """A weight (out, in) and a bias whose rows make the coordinates `first`, `first` + 1, …"""

    weight: View
    bias: View | None
    first: int


@dataclass(frozen=True, eq=False)
class Consumer:
    """A weight whose columns (axis 1 of the view) are contracted with coordinates; −1: with something else."""

    weight: View
    coordinates: Tensor


@dataclass(frozen=True, eq=False)
class Coordinates:
    """What the traversal collects.

    Attributes:
        count: number of coordinates.
        producers, consumers: the weights that make and read them.
        forbidden: coordinates that may not be mixed.
        links: (one, other, sign): two coordinates that go together, by M (+1), or the other by M⁻ᵀ (−1).
        contractions: for each, coordinate → number of the row of coordinates that it is contracted with.
        uses: parameter → every view of it that an operation uses.
    """

    count: int
    producers: tuple[Producer, ...]
    consumers: tuple[Consumer, ...]
    forbidden: frozenset[int]
    links: tuple[tuple[int, int, int], ...]
    contractions: tuple[dict[int, int], ...]
    uses: Mapping[str, list[View]]
