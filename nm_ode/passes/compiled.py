"""Sums of regions by kernels in C, which read each vector once: where there is a compiler, on the CPU."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nm_ode.passes.compiler import Compiler
from nm_ode.passes.regions import Read, Region
from nm_ode.passes.source import Kernel, StepOf
from nm_ode.passes.wanted import Found, Pair, Sum

WORTH_IT = 1_000_000
"""Parameters from which on kernels are compiled."""

_REALS: dict[torch.dtype, tuple[str, Any]] = {
    torch.float32: ("float", ctypes.c_float),
    torch.float64: ("double", ctypes.c_double),
}
_MOST = 32  # vectors that a kernel reads at once
_SHARED = 1 << 17  # entries from which on threads share a region


def takes(region: Region, read: Read) -> bool:
    """Is the region such as a kernel reads?"""
    tensors = read.tensors
    dtype = tensors[0].dtype
    if dtype not in _REALS or len(tensors) > _MOST or not region.matrix[1]:
        return False
    return not any(product.others for product in region.products) and all(
        one.dtype == dtype and one.device.type == "cpu" and (one.stride(1) == 1 or one.shape[1] == 1)
        for one in tensors
    )


class Compiled:
    """All sums of some regions by kernels.

    Args:
        compiler: makes them.
        regions: that are read.
        reads: such as there will be: the same names, in tensors of the same dtype.
        totals: pairs of which the regions' totals are wanted.
    """

    def __init__(
        self, compiler: Compiler, regions: Sequence[Region], reads: Sequence[Read], totals: Sequence[Pair]
    ) -> None:
        self._compiler, self._regions = compiler, regions
        self._tasks = [_Task.of(*pair) for pair in zip(regions, reads, strict=True)]
        self.works = compiler.prepare([task.kernel for task in self._tasks])
        self._sizes: list[int] = []
        places: dict[Pair, list[int]] = {pair: [] for pair in totals}
        at = 0
        for region, task in zip(regions, self._tasks, strict=True):
            for k, product in enumerate(region.products):
                if product.pair in region.totals:
                    places[product.pair].append(at + k)
            at += len(region.products)
            self._sizes += task.sizes(region)
        self._at = {
            pair: torch.tensor(numbers, dtype=torch.long, device="cpu") for pair, numbers in places.items()
        }
        self._n_totals = at

    def __call__(self, reads: Sequence[Read]) -> Found:
        """Read the regions, in their order."""
        # All in one: totals of every region, then of each its rows and its columns.
        made = torch.zeros(self._n_totals + sum(self._sizes), dtype=torch.float64, device="cpu")
        totals, *parts = made.split([self._n_totals, *self._sizes])
        sums: dict[Sum, Tensor] = {}
        digests: dict[tuple[str, str], int] = {}
        at = 0
        for i, (region, task, read) in enumerate(zip(self._regions, self._tasks, reads, strict=True)):
            mine = totals[at : at + len(region.products)]
            rows, columns = parts[2 * i], parts[2 * i + 1]
            for name, digest in self._read(region, task, read, (mine, rows, columns)).items():
                digests[region.name, name] = digest
            for one in task.asked:
                sums[one.sum] = one.of(mine, rows, columns)
            at += len(region.products)
        found = {pair: totals[places] for pair, places in self._at.items()}
        self._scale(reads, found, sums)
        return Found(found, sums, digests)

    def _read(self, region: Region, task: _Task, read: Read, made: tuple[Tensor, ...]) -> Mapping[str, int]:
        n, m = region.matrix
        streams = [*read.whole.values(), *(one for pair in read.differences.values() for one in pair)]
        copies = [copy for _, copy in read.copies]
        if task.may_be_flat and all(one.is_contiguous() for one in [*streams, *copies]):
            n, m = 1, n * m
            streams, copies = [one.view(n, m) for one in streams], [one.view(n, m) for one in copies]
        parts = _parts(n, m)
        if len(parts) == 1:
            numbers = self._call(task, read, streams, copies, made, (0, m))
        else:

            def part(where: tuple[slice, slice]) -> tuple[list[Tensor], list[int]]:
                mine = [[one[where] for one in some] for some in (streams, copies)]
                into = [
                    torch.zeros(one.shape, dtype=one.dtype, device="cpu")
                    for one in _of_part(made, (n, m), where)
                ]
                origin = (where[0].start or 0) * m + (where[1].start or 0)
                return into, self._call(task, read, mine[0], mine[1], into, (origin, m))

            results = list(_threads(os.getpid()).map(part, parts))
            for where, (into, _) in zip(parts, results, strict=True):
                for whole, piece in zip(_of_part(made, (n, m), where), into, strict=True):
                    whole.add_(piece)
            numbers = [sum(each) for each in zip(*(digests for _, digests in results), strict=True)]
        return {name: number & task.mask for name, number in zip(region.digests, numbers, strict=True)}

    def _call(
        self,
        task: _Task,
        read: Read,
        streams: list[Tensor],
        copies: list[Tensor],
        made: Sequence[Tensor],
        place: tuple[int, int],
    ) -> list[int]:
        """Of a part of a region: totals, rows and columns are added to, digests are returned.

        Args:
            place: of the part's first entry, and how many a row of the whole has.
        """
        n, m = streams[0].shape
        dtype, kernel = streams[0].dtype, task.kernel
        digests = (ctypes.c_uint64 * len(kernel.digests))()
        room = torch.empty(kernel.columns * m, dtype=dtype, device="cpu")
        self._compiler[kernel](
            n,
            m,
            _pointers(streams),
            _numbers([one.stride(0) for one in streams]),
            _pointers(copies),
            _numbers([one.stride(0) for one in copies]),
            *(one.data_ptr() for one in made),
            room.data_ptr(),
            None if read.step is None else (_REALS[dtype][1] * 4)(*read.step.numbers),
            digests,
            *place,
        )
        return list(digests)

    def _scale(self, reads: Sequence[Read], totals: dict[Pair, Tensor], sums: dict[Sum, Tensor]) -> None:
        """Times the numbers by which vectors are to be multiplied."""
        if not any(read.factors for read in reads):
            return
        for pair in totals:
            mine = [
                read.factor(pair)
                for region, read in zip(self._regions, reads, strict=True)
                if pair in region.totals
            ]
            totals[pair] = totals[pair] * torch.tensor(mine, dtype=torch.float64, device="cpu")
        for task, read in zip(self._tasks, reads, strict=True):
            for one in task.asked:
                sums[one.sum] = sums[one.sum] * read.factor(one.sum.pair)


@dataclass(frozen=True)
class _Asked:
    """A sum, and where it is found: the number of its product's total, rows or columns.

    Attributes:
        shape, dims: of columns, and what is summed over.
    """

    sum: Sum
    of_what: int
    number: int
    length: int
    shape: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()

    def of(self, *made: Tensor) -> Tensor:
        found = made[self.of_what].narrow(0, self.number * self.length, self.length)
        return found.view(self.shape).sum(self.dims).view(-1) if self.dims else found


@dataclass(frozen=True)
class _Task:
    """What a kernel is told of a region, whichever tensors it reads.

    Attributes:
        asked: what is made of what it makes.
        may_be_flat: are there no sums by row or column?
        mask: of a digest.
    """

    kernel: Kernel
    asked: list[_Asked]
    may_be_flat: bool
    mask: int

    def sizes(self, region: Region) -> tuple[int, int]:
        """Of its rows and its columns."""
        n, m = region.matrix
        return self.kernel.rows * n, self.kernel.columns * m

    @classmethod
    def of(cls, region: Region, read: Read) -> _Task:
        real = _REALS[read.tensors[0].dtype][0]
        first, streams = len(read.whole), len(read.whole) + 2 * len(read.differences)
        numbers = {name: i for i, name in enumerate(read.whole)}
        numbers |= {name: streams + k for k, name in enumerate(read.differences)}
        step = None
        if read.step is not None:
            theta, gradient, *velocity = (numbers[name] for name in read.step.reads)
            decays, nesterov = bool(read.step.weight_decay), read.step.nesterov
            step = StepOf(theta, gradient, velocity[0] if velocity else None, decays, nesterov)
            numbers |= {name: streams + len(read.differences) + i for i, name in enumerate(read.step.gives)}
        products, rows, columns = [], 0, 0
        asked: list[_Asked] = []
        (n, m), shape = region.matrix, region.shape
        for k, product in enumerate(region.products):
            u, v = (numbers[name] for name in product.pair)
            row, column = rows if product.rows else -1, columns if product.columns else -1
            products.append((u, v, row, column))
            rows, columns = rows + product.rows, columns + product.columns
            for one in product.sums:
                if not one.axes:
                    asked.append(_Asked(one, 0, k, 1))
                elif one.axes == (0,):
                    asked.append(_Asked(one, 1, row, n))
                else:
                    dims = tuple(dim - 1 for dim in range(1, len(shape)) if dim not in one.axes)
                    asked.append(_Asked(one, 2, column, m, shape[1:], dims))
        kernel = Kernel(
            real,
            streams,
            tuple((first + 2 * k, first + 2 * k + 1) for k in range(len(read.differences))),
            step,
            tuple(products),
            tuple(numbers[name] for name, _ in read.copies),
            tuple(numbers[name] for name in region.digests),
        )
        return cls(kernel, asked, not (rows or columns), (1 << 32) - 1 if real == "float" else (1 << 64) - 1)


def _parts(n: int, m: int) -> list[tuple[slice, slice]]:
    """A part of the matrix for each of torch's threads: some rows, or a piece of the only one."""
    threads = min(torch.get_num_threads(), n * m // _SHARED) if n * m >= 2 * _SHARED else 1
    length = m if n == 1 else n
    each = -(-length // max(1, threads))
    pieces = [slice(at, min(at + each, length)) for at in range(0, length, max(1, each))] or [
        slice(0, length)
    ]
    return [(slice(None), piece) if n == 1 else (piece, slice(None)) for piece in pieces]


def _of_part(
    made: Sequence[Tensor], shape: tuple[int, int], where: tuple[slice, slice]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the totals, rows and columns of a part of the matrix are added up: several parts may share them."""
    totals, rows, columns = made
    n, m = shape
    return totals, rows.view(-1, n)[:, where[0]], columns.view(-1, m)[:, where[1]]


def _numbers(numbers: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _pointers(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(one.data_ptr() for one in tensors))


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Of this process: one that was forked has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count() or 1, "nm_ode_pass")
