"""What the graph asks of mixings: coordinates that go together, that are summed together, or that may not be mixed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nm_ode.symmetries.labels import NONE, compressed, one_for_each
from nm_ode.symmetries.rules.matrix.coordinates import ZERO, Labels


@dataclass(frozen=True, eq=False)
class Link:
    """Coordinates that go together, pair by pair, in one event: by M (+1), or the other by M⁻ᵀ (−1).

    Attributes:
        event: its number; in one event with sign +1 coordinates of one vector must meet those of one vector.
        pairs: int64, shape (n, 2).
    """

    event: int
    pairs: Tensor
    sign: int


@dataclass
class Conditions:
    """All that has been asked so far.

    Attributes:
        links: see there.
        sums: coordinates of one vector that are summed with the coordinates of another.
        forbidden: coordinates that may not be mixed.
    """

    links: list[Link] = field(default_factory=list)
    sums: dict[bytes, Tensor] = field(default_factory=dict)
    forbidden: list[Tensor] = field(default_factory=list)
    _events: int = 0

    def forbid(self, coordinates: Tensor | Labels | None) -> None:
        """These may not be mixed."""
        if isinstance(coordinates, Labels):
            coordinates = compressed(coordinates.coordinates)
        if coordinates is not None:
            found = coordinates.reshape(-1).unique()
            self.forbidden.append(found[found >= 0])

    def link(self, one: Tensor, other: Tensor, sign: int = 1) -> None:
        """Entry by entry; both of the same shape, without `NONE` and `ZERO`."""
        pairs = torch.stack([one.reshape(-1), other.reshape(-1)], dim=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]] if sign == 1 else pairs
        if len(pairs):
            self._events += 1
            self.links.append(Link(self._events, pairs.unique(dim=0), sign))

    def summed(self, coordinates: Tensor) -> None:
        """These are coordinates of one vector, and all of them are contracted at once."""
        ordered = coordinates.sort().values
        self.sums[ordered.numpy().tobytes()] = ordered

    def alike(self, a: Tensor, b: Tensor) -> Tensor:
        """What is the sum of two is a coordinate of both, or may not be mixed; zeros are coordinates of anything."""
        a, b = torch.broadcast_tensors(a, b)
        shape = a.shape
        a, b = torch.broadcast_tensors(compressed(a), compressed(b))
        both = (a >= 0) & (b >= 0)
        self.link(a[both], b[both])
        self.forbid(a[(a >= 0) & (b == NONE)])
        self.forbid(b[(b >= 0) & (a == NONE)])
        made = torch.where(a == ZERO, b, torch.where((b == NONE) & (a >= 0), b, a))
        return made.expand(shape)

    def merge(self, coordinates: Tensor, keep: tuple[int, ...]) -> Tensor:
        """Alike along all dimensions but those kept; one of each, in the kept dimensions' shape."""
        groups = one_for_each(compressed(coordinates), keep)
        first = groups.amax(-1)
        unlike = ((groups != first[..., None]) & (groups != ZERO)).reshape(-1, groups.shape[-1])
        for place in unlike.any(0).nonzero()[:, 0].tolist():
            first = self.alike(first, groups[..., place])
        return first.expand([coordinates.shape[dim] for dim in keep])
