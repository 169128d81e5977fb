"""Seeded sparse sign projections: few numbers of a long vector, from which norms of differences are estimated.

S has one entry a column, ±1, in a row drawn at random (Charikar, Chen, Farach-Colton 2002; as an embedding: Clarkson,
Woodruff 2013). For any x, over the draw of S,

    E‖Sx‖² = ‖x‖²,        Var‖Sx‖² = 2 Σ_{i≠j} P(i and j share a row) x_i² x_j² ≤ (2/m) ‖x‖⁴,

so ‖Sx‖ estimates ‖x‖ with a relative standard error of at most about 1/√(2m): 1.1 % with m = 4096. S is linear, so
differences of vectors of which nothing but the sketches was kept are estimated as well.

Entries lie in blocks of 64, each with a word of 64 random signs and a random first row, from which its entries go to
consecutive rows: two entries of different blocks share a row with probability 1/m, those of one block never. So S takes
a quarter of a byte a parameter, and is the same on every device: the words are drawn by NumPy's Philox.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nm_ode.parameters import Layout, Parts, Vector

_BLOCK = 64  # entries, as many as a word has signs
_AT_A_TIME = {"cpu": 1 << 10}  # blocks: what a cache holds
_ON_OTHERS = 1 << 14  # a GPU would rather have few calls
_SIGN = -(2**63)  # the bit of a float64's sign

SMALLEST = _BLOCK
"""Fewest rows: a block's entries go to different ones."""


def standard_error(m: int) -> float:
    """Of ‖Sx‖ as an estimate of ‖x‖, over ‖x‖: an upper bound, to leading order in 1/m."""
    return 1 / math.sqrt(2 * m)


class SparseSigns:
    """S for vectors of a layout, shape (m, P); by layer, m rows for each, shape (layers · m, P).

    Args:
        layout: of theta; each parameter begins a new block.
        m: rows, at least SMALLEST.
        seed: the same seed, m and layout give the same S everywhere.
        device: of the vectors.
        by_layer: a sketch of each layer, one after the other: then their norms are told apart.

    Attributes:
        parts: 1, or the number of layers.
    """

    def __init__(
        self, layout: Layout, m: int, seed: int, device: torch.device | str = "cpu", *, by_layer: bool = False
    ) -> None:
        self.m, self.seed, self._layout = m, seed, layout
        layers = list(layout.layers)
        self._part_of = [layers.index(slot.layer) if by_layer else 0 for slot in layout.slots]
        self.parts = len(layers) if by_layer else 1
        counts = [-(-slot.size // _BLOCK) for slot in layout.slots]
        total = sum(counts)
        raw = np.random.Philox(key=seed).random_raw(2 * total)
        signs = torch.from_numpy(raw[:total].view(np.int64)).to(device)
        rows = torch.from_numpy((raw[total:] % np.uint64(m)).astype(np.int64)).to(device)
        self._signs, self._rows = torch.split(signs, counts), torch.split(rows, counts)
        self._entries = torch.arange(_BLOCK, device=device)
        self._at_a_time = _AT_A_TIME.get(torch.device(device).type, _ON_OTHERS)

    def of(self, vector: Vector) -> Tensor:
        """Sx, shape (parts · m,), in float64. The vector is read where it lies, some blocks at a time."""
        pieces = vector.tensors if isinstance(vector, Parts) else self._layout.split(vector)
        # A block that begins in one of the last rows goes on in rows beyond, which are the first.
        sums = torch.zeros(self.parts, self.m + _BLOCK, dtype=torch.float64, device=self._entries.device)
        each = zip(pieces, self._signs, self._rows, self._part_of, strict=True)
        for piece, signs, rows, part in each:
            first = 0
            for blocks in _blocks_of(piece.detach().reshape(-1), self._at_a_time):
                here = slice(first, first + len(blocks))
                first += len(blocks)
                flips = (signs[here, None] << (_BLOCK - 1 - self._entries)).bitwise_and_(_SIGN)
                blocks.view(torch.int64).bitwise_xor_(flips)
                into = rows[here, None] + self._entries
                sums[part].scatter_add_(0, into.view(-1), blocks.view(-1))
        sums[:, :_BLOCK] += sums[:, self.m :]
        return sums[:, : self.m].reshape(-1)


def _blocks_of(entries: Tensor, at_a_time: int) -> Iterator[Tensor]:
    """Copies in float64, shape (blocks, 64); the last is filled up with zeros."""
    whole = len(entries) // _BLOCK
    for first in range(0, whole, at_a_time):
        some = entries[first * _BLOCK : min(first + at_a_time, whole) * _BLOCK]
        yield some.to(torch.float64, copy=True).view(-1, _BLOCK)
    left = entries[whole * _BLOCK :]
    if len(left):
        last = torch.zeros(1, _BLOCK, dtype=torch.float64, device=entries.device)
        last[0, : len(left)] = left
        yield last
