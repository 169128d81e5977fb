"""A region's sums by torch's operations, on any device: some rows at a time, which stay in the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from nm_ode.passes.regions import Product, Read, Reduced, Region, float64, summed

_CHUNK = (
    1 << 18
)  # entries that are read at a time: few enough for a cache, enough beside what an operation costs
_CHUNK_OF_DEVICE = 1 << 22  # on a GPU, where an operation costs a launch and the cache is larger


class Eager:
    """Sums by torch's operations; nothing is waited for.

    Args:
        chunk: how many entries are read at a time; by default so many as suit the device.
    """

    def __init__(self, chunk: int | None = None) -> None:
        self._chunk = chunk
        self._rooms: dict[str, Tensor] = {}

    def __call__(self, region: Region, read: Read) -> list[Reduced]:
        """One for each of the region's products."""
        n, m = region.matrix
        like = read.tensors[0]
        chunk = self._chunk or (_CHUNK if like.device.type == "cpu" else _CHUNK_OF_DEVICE)
        if n * m <= chunk:
            return self._at_once(region, read, like)
        rows = max(1, chunk // max(1, m))
        pieces = {name: matrix.split(rows) for name, matrix in read.whole.items()}
        moved = {
            name: (
                after.split(rows),
                before.split(rows),
                self._room(name, rows * m, like).view(rows, m).split(rows),
            )
            for name, (after, before) in read.differences.items()
        }
        copies = [(name, copy.split(rows)) for name, copy in read.copies]
        room = self._room("product", rows * m, like).view(rows, m)
        partial = [_Partial(product, region, rows, like) for product in region.products]
        for i in range(-(-n // rows)):
            here = {name: parts[i] for name, parts in pieces.items()}
            for name, (after, before, (difference,)) in moved.items():
                here[name] = torch.sub(after[i], before[i], out=difference[: len(after[i])])
            for one in partial:
                u, v = one.product.pair
                one.add(i, here[u], here[v], room)
            for name, parts in copies:
                parts[i].copy_(here[name])
        return [one.reduced() for one in partial]

    def _at_once(self, region: Region, read: Read, like: Tensor) -> list[Reduced]:
        """Of a region that is no more than one chunk, with as few operations as there are sums."""
        n, m = region.matrix
        here = dict(read.whole)
        for name, (after, before) in read.differences.items():
            here[name] = torch.sub(after, before, out=self._room(name, n * m, like).view(n, m))
        room = self._room("product", n * m, like).view(n, m)
        found = [
            _reduced(product, here[product.pair[0]], here[product.pair[1]], region, room)
            for product in region.products
        ]
        for name, copy in read.copies:  # at the end: what was copied before is read, too
            copy.copy_(here[name])
        return found

    def _room(self, name: str, size: int, like: Tensor) -> Tensor:
        room = self._rooms.get(name)
        kind = (like.dtype, like.device)
        if room is None or room.numel() < size or (room.dtype, room.device) != kind:
            room = self._rooms[name] = like.new_empty(size)
        return room[:size]


def _reduced(product: Product, u: Tensor, v: Tensor, region: Region, room: Tensor) -> Reduced:
    if not (product.rows or product.columns or product.others):
        return Reduced(torch.dot(u.reshape(-1), v.reshape(-1)).double())
    made = torch.mul(u, v, out=room)
    rows = made.sum(1, dtype=torch.float64) if product.rows else None
    columns = made.sum(0, dtype=torch.float64) if product.columns else None
    known = next((one for one in (rows, columns) if one is not None), made)
    whole = made.view(region.shape)
    return Reduced(
        float64(known), rows, columns, {axes: _kept(whole, axes).double() for axes in product.others}
    )


def _kept(whole: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`summed`; a copy."""
    found = summed(whole, axes)
    return found.clone() if len(axes) == whole.ndim else found


class _Partial:
    """A product's sums of each chunk, added at the end: fewer roundings one after the other.

    Args:
        rows: that are read at a time.
    """

    def __init__(self, product: Product, region: Region, rows: int, like: Tensor) -> None:
        self.product, self._shape = product, region.shape
        n, m = region.matrix
        chunks = -(-n // rows)
        self._rows = like.new_empty(n) if product.rows else None
        self._by_row = () if self._rows is None else self._rows.split(rows)
        self._columns = like.new_empty(chunks, m) if product.columns else None
        self._ones = like.new_ones(rows)
        self._others: dict[tuple[int, ...], list[Tensor]] = {axes: [] for axes in product.others}
        alone = self._rows is None and self._columns is None
        self._all = like.new_empty(chunks) if alone else None
        self._elementwise = not alone or bool(self._others)

    def add(self, i: int, u: Tensor, v: Tensor, room: Tensor) -> None:
        """Chunk i."""
        if self._all is not None:
            torch.dot(u.reshape(-1), v.reshape(-1), out=self._all[i])
        if not self._elementwise:
            return
        made = torch.mul(u, v, out=room[: len(u)])
        if self._by_row:
            torch.sum(made, 1, out=self._by_row[i])
        if self._columns is not None:
            torch.mv(made.t(), self._ones[: len(u)], out=self._columns[i])
        for axes, parts in self._others.items():
            parts.append(_kept(made.view(len(u), *self._shape[1:]), axes))

    def reduced(self) -> Reduced:
        """All of them."""
        partial = next(one for one in (self._all, self._rows, self._columns) if one is not None)
        return Reduced(
            float64(partial),
            None if self._rows is None else self._rows.double(),
            None if self._columns is None else self._columns.sum(0, dtype=torch.float64),
            {axes: torch.cat(parts).double() for axes, parts in self._others.items()},
        )
