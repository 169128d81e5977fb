"""In which ways parameters are used: each says by unknowns how the parameter's entries shift; all must say the same."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from nm_ode.symmetries.rules.translation.system import ZERO, System
from nm_ode.symmetries.rules.weights import Weight, described, overlap
from nm_ode.symmetries.symmetry import View, whole

_MOST = 1 << 22
"""Entries that may have an unknown each; a larger parameter that is used entry by entry may not shift."""


@dataclass(frozen=True, eq=False)
class Share:
    """What is added to the entries of a view.

    Attributes:
        labels: unknowns, shape of the view (stride 0 where they are equal).
        vector: axes of the view along which an unknown is a vector, its places in their order.
        still: places of the vectors that may not shift.
    """

    labels: Tensor
    vector: tuple[int, ...] = ()
    still: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Use:
    """The entries of a view shift by the sum of the shares; by nothing without any."""

    view: View
    shares: tuple[Share, ...]


@dataclass(frozen=True, eq=False)
class LookedUp:
    """Labels of a table that is read at places which the batch says.

    Attributes:
        plain: of a shift that is equal at all places.
        single: of vectors with a number for each place.
        size: number of places.
    """

    plain: Tensor
    single: Tensor
    size: int


class Uses:
    """The uses of all parameters, and the ties between vectors and the numbers that they are made of."""

    def __init__(self, system: System, rank: dict[str, int]) -> None:
        self.system = system
        self.rank = rank
        self.made: dict[tuple[View, str, tuple[int, ...]], Use] = {}
        self.ties: list[tuple[Tensor, Tensor]] = []
        self._packed: dict[bytes, int] = {}

    def hold(self, weight: Weight) -> None:
        """None of its entries may shift."""
        view = described(weight.name, weight.view)
        self.made.setdefault((view, "held", ()), Use(view, ()))

    def entries(self, weight: Weight) -> Tensor | None:
        """An unknown for each entry; None where they may not shift."""
        view = described(weight.name, weight.view)
        if view.size > _MOST:
            self.hold(weight)
            return None
        use = self.made.get((view, "entries", ()))
        if use is None:
            made = self.system.new(view.size, rank=self.rank[view.parameter]).reshape(view.shape)
            use = self.made[view, "entries", ()] = Use(view, (Share(made),))
        return use.shares[0].labels

    def rows(self, weight: Weight, axes: tuple[int, ...]) -> Tensor:
        """Unknowns that are vectors along some axes, one for each place along the others."""
        view = described(weight.name, weight.view)
        use = self.made.get((view, "rows", axes))
        if use is None:
            size = prod(view.shape[axis] for axis in axes)
            vector = axes if size > 1 else ()  # a vector of one number is a number
            use = self.made[view, "rows", axes] = Use(view, (Share(self._each(view, axes, size), vector),))
        return use.shares[0].labels

    def looked_up(self, weight: Weight, axes: tuple[int, ...], still: tuple[int, ...] = ()) -> LookedUp:
        """A table that is read at places along some axes which the batch says.

        Args:
            still: places that no gradient reaches.
        """
        view = described(weight.name, weight.view)
        size = prod(view.shape[axis] for axis in axes)
        key = (view, f"looked up {still}", axes)
        if key not in self.made:
            plain = torch.full((), ZERO).expand(view.shape)
            if not still:
                plain = self._each(view, axes, 1)
            # Of a table of one row both would be the same.
            single = self._each(view, axes, size) if size > 1 else torch.full((), ZERO).expand(view.shape)
            self.made[key] = Use(view, (Share(plain), Share(single, axes, still)))
        plain, single = (share.labels for share in self.made[key].shares)
        return LookedUp(plain, single, size)

    def _each(self, view: View, axes: tuple[int, ...], size: int) -> Tensor:
        """An unknown of some size for each place of a view along the axes but these."""
        sizes = [1 if axis in axes else n for axis, n in enumerate(view.shape)]
        made = self.system.new(prod(sizes), size, self.rank[view.parameter])
        return made.reshape(sizes).expand(view.shape)

    def vectors(self, numbers: Tensor) -> Tensor:
        """A vector for each row of unknowns that are numbers, shape (m, K) → (m,)."""
        distinct, inverse = np.unique(numbers.numpy(), axis=0, return_inverse=True)
        labels = np.zeros(len(distinct), dtype=np.int64)
        fresh = []
        for i, row in enumerate(distinct):
            if row.any():
                key = row.tobytes()
                if key not in self._packed:
                    self._packed[key] = int(self.system.new(1, len(row))[0])
                    fresh.append(i)
                labels[i] = self._packed[key]
        if fresh:
            self.ties.append((torch.from_numpy(labels[fresh]), torch.from_numpy(distinct[fresh])))
        return torch.from_numpy(labels[inverse.reshape(-1)])

    def finish(self, shapes: dict[str, tuple[int, ...]]) -> list[tuple[Use, Use]]:
        """Pairs of uses of the same entries, which must agree; what is not used at all may shift as it likes.

        Args:
            shapes: of the parameters.
        """
        by_name: dict[str, list[Use]] = defaultdict(list)
        for use in self.made.values():
            by_name[use.view.parameter].append(use)
        pairs = []
        for uses in by_name.values():
            for i, one in enumerate(uses):
                for other in uses[i + 1 :]:
                    if overlap(one.view, other.view):
                        pairs.append((one, other))
        for pair in pairs:
            for use in pair:
                # Of a table with another reader no place shifts by itself: that is left to the other.
                for share in use.shares[1:]:
                    self.system.zero(share.labels)
        for name, shape in shapes.items():
            self._unused(whole(name, shape), by_name.get(name, []))
        return pairs

    def _unused(self, view: View, uses: list[Use]) -> None:
        if any(use.view.size == view.size for use in uses) or view.size > _MOST:
            return
        used = torch.zeros(view.size, dtype=torch.bool)
        for use in uses:
            use.view.of(used)[...] = True
        left = ~used.reshape(view.shape)
        if bool(left.any()):
            labels = torch.zeros(view.shape, dtype=torch.int64)
            labels[left] = self.system.new(int(left.sum()), rank=self.rank[view.parameter])
            self.made[view, "unused", ()] = Use(view, (Share(labels),))
