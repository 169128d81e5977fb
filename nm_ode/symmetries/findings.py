"""What the rules of a kind find in a graph, before it has a name and is verified."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.symmetry import Part


@dataclass(frozen=True, eq=False)
class Found:
    """Parts that move together; a `Symmetry` to be.

    Attributes:
        kind: a name in `KINDS`.
        parts: the parameters that take part.
    """

    kind: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Absorption:
    """A normalisation's ε, which breaks symmetries by a known amount: it stands beside what they multiply.

    Entry `groups[i]` of the ε stands beside a factor of channel `channels[i]` of symmetry `members[i]`, to the power
    `powers[i]` (2 beside a variance).

    Attributes:
        node: the normalisation, or a sum with a small number.
        shape: of the ε: one for each channel, or sample and position, or entry of the sum.
        epsilon: its size.
        groups, members, channels: int64, shape (n,); `members` are places in `Findings.symmetries`.
        powers: float64, shape (n,).
    """

    node: Node
    shape: tuple[int, ...]
    epsilon: float
    groups: Tensor
    members: Tensor
    channels: Tensor
    powers: Tensor


@dataclass(frozen=True, eq=False)
class Findings:
    """All that one look at a graph finds, of one kind or several."""

    symmetries: tuple[Found, ...]
    absorptions: tuple[Absorption, ...] = ()
