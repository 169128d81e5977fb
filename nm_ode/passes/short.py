"""Sums of short flat vectors: each product is made whole, in few operations, whatever the number of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes.regions import summed
from nm_ode.passes.wanted import Found, Pair, Sum, Wanted

_SHORT = 1 << 15  # entries up to which what an operation costs is more than what it reads


class Short:
    """All sums of a pass over flat vectors on the CPU.

    Args:
        layout: of the vectors.
        wanted: of all readers.
    """

    def __init__(self, layout: Layout, wanted: Wanted) -> None:
        sizes = [slot.size for slot in layout.slots]
        self._is_short = 0 < layout.size <= _SHORT and all(sizes) and not wanted.digests
        self._starts = np.array([slot.start for slot in layout.slots])
        self._start_of = {slot.name: slot.start for slot in layout.slots}
        self._totals, self._copies = wanted.totals, sorted(wanted.copies)
        self._sums = {pair: [one for one in wanted.sums if one.pair == pair] for pair in sorted(wanted.pairs)}

    def __call__(self, given: Mapping[str, Vector]) -> Found | None:
        """Read the vectors; None where they are not such."""
        vectors = {
            name: one for name, one in given.items() if isinstance(one, Tensor) and one.device.type == "cpu"
        }
        if not self._is_short or len(vectors) < len(given):
            return None
        totals: dict[Pair, Tensor] = {}
        sums: dict[Sum, Tensor] = {}
        for pair, asked in self._sums.items():
            product = torch.mul(*(vectors[name].double() for name in pair))
            if pair in self._totals:
                with np.errstate(all="ignore"):  # a run that diverges is told of by its loss
                    totals[pair] = torch.from_numpy(np.add.reduceat(product.numpy(), self._starts))
            for one in asked:
                sums[one] = self._of(product, one)
        for name, copy in self._copies:  # at the end: what was copied before is read, too
            vectors[copy].copy_(vectors[name])
        return Found(totals, sums)

    def _of(self, product: Tensor, one: Sum) -> Tensor:
        return summed(one.view.of(product, self._start_of[one.view.parameter]), one.axes)
