"""A region's sums by a kernel in C, which reads each vector once: where there is a compiler, on the CPU."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nm_ode.passes.compiler import Compiler
from nm_ode.passes.regions import Read, Reduced, Region
from nm_ode.passes.source import Kernel, StepOf
from nm_ode.passes.stepping import Settings

WORTH_IT = 1_000_000
"""Parameters from which on kernels are compiled."""

_REALS = {torch.float32: ("float", ctypes.c_float), torch.float64: ("double", ctypes.c_double)}
_MOST = 32  # vectors that a kernel reads at once
_SHARED = 1 << 17  # entries from which on threads share a region


class Compiled:
    """Sums by kernels.

    Args:
        compiler: makes them.
    """

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._tasks: dict[tuple[Any, ...], _Task] = {}

    @staticmethod
    def takes(region: Region, read: Read) -> bool:
        """Is the region such as a kernel reads?"""
        first = read.tensors[0]
        return (
            first.dtype in _REALS
            and len(read.tensors) <= _MOST
            and region.matrix[1] > 0
            and not any(product.others for product in region.products)
            and all(
                one.device.type == "cpu"
                and one.dtype == first.dtype
                and (one.stride(1) == 1 or one.shape[1] == 1)
                for one in read.tensors
            )
        )

    def prepare(self, pairs: Sequence[tuple[Region, Read]]) -> bool:
        """Have the kernels of these regions made. Could they be?"""
        return self._compiler.prepare([self._task(*pair).kernel for pair in pairs])

    def __call__(self, region: Region, read: Read) -> list[Reduced]:
        """One for each of the region's products; then digests are in `read`."""
        task, (n, m) = self._task(region, read), region.matrix
        streams = [*read.whole.values(), *(one for pair in read.differences.values() for one in pair)]
        copies = [copy for _, copy in read.copies]
        if task.may_be_flat and all(one.is_contiguous() for one in [*streams, *copies]):
            n, m = 1, n * m
            streams, copies = [one.view(n, m) for one in streams], [one.view(n, m) for one in copies]
        parts = _parts(n, m)
        if len(parts) == 1:
            results = [self._sums(task, streams, copies, read.step, 0, m)]
        else:

            def part(where: tuple[slice, slice]) -> _Sums:
                mine = [[one[where] for one in some] for some in (streams, copies)]
                origin = (where[0].start or 0) * m + (where[1].start or 0)
                return self._sums(task, mine[0], mine[1], read.step, origin, m)

            results = list(_threads().map(part, parts))
        rows, columns = results[0].rows, results[0].columns
        if len(parts) > 1:
            by_row = [one.rows for one in results]
            rows = torch.stack(by_row).sum(0) if n == 1 else torch.cat(by_row, 1)
            # Only in parts of rows are there columns.
            if task.kernel.columns:
                columns = torch.stack([one.columns for one in results]).sum(0)
        for k, name in enumerate(region.digests):
            read.digests[name] = sum(one.digests[k] for one in results) & task.mask
        return [
            Reduced(total, rows[k] if product.rows else None, columns[row] if row >= 0 else None)
            for k, (product, row, total) in enumerate(
                zip(region.products, task.rows_of_columns, rows.sum(1).unbind(), strict=True)
            )
        ]

    def _task(self, region: Region, read: Read) -> _Task:
        step = None if read.step is None else (read.step.weight_decay != 0, read.step.nesterov)
        key = (region, read.tensors[0].dtype, step, *read.whole, None, *read.differences)
        if key not in self._tasks:
            self._tasks[key] = _Task.of(region, read)
        return self._tasks[key]

    def _sums(
        self,
        task: _Task,
        streams: list[Tensor],
        copies: list[Tensor],
        step: Settings | None,
        origin: int,
        row: int,
    ) -> _Sums:
        """Of a part of the region, whose first entry is the `origin`-th of its matrix with rows of length `row`."""
        (n, m), kernel, dtype = streams[0].shape, task.kernel, streams[0].dtype
        made = _Sums(
            torch.zeros(len(kernel.products), n, dtype=torch.float64, device="cpu"),
            torch.zeros(kernel.columns, m, dtype=torch.float64, device="cpu"),
            (ctypes.c_uint64 * len(kernel.digests))(),
        )
        room = torch.empty(kernel.columns * m, dtype=dtype, device="cpu")
        real = _REALS[dtype][1]
        self._compiler[kernel](
            n,
            m,
            n,
            _pointers(streams),
            _numbers([one.stride(0) for one in streams]),
            _pointers(copies),
            _numbers([one.stride(0) for one in copies]),
            made.rows.data_ptr(),
            made.columns.data_ptr(),
            room.data_ptr(),
            None if step is None else (real * 4)(*step.numbers),
            made.digests,
            origin,
            row,
        )
        return made


@dataclass(frozen=True)
class _Sums:
    """By row, (products, n), and by column, (columns, m)."""

    rows: Tensor
    columns: Tensor
    digests: Any


@dataclass(frozen=True)
class _Task:
    """What a kernel is told of a region, whichever tensors it reads.

    Attributes:
        rows_of_columns: of each product, or -1.
        may_be_flat: are there no sums by row or column?
        mask: of a digest.
    """

    kernel: Kernel
    rows_of_columns: list[int]
    may_be_flat: bool
    mask: int = field(default=(1 << 64) - 1)

    @classmethod
    def of(cls, region: Region, read: Read) -> _Task:
        real = _REALS[read.tensors[0].dtype][0]
        first, streams = len(read.whole), len(read.whole) + 2 * len(read.differences)
        numbers = {name: i for i, name in enumerate(read.whole)}
        numbers |= {name: streams + k for k, name in enumerate(read.differences)}
        step = None
        if read.step is not None:
            theta, gradient, *velocity = (numbers[name] for name in read.step.reads)
            step = StepOf(
                theta,
                gradient,
                velocity[0] if velocity else None,
                bool(read.step.weight_decay),
                read.step.nesterov,
            )
            numbers |= {name: streams + len(read.differences) + i for i, name in enumerate(read.step.gives)}
        with_columns = [product for product in region.products if product.columns]
        rows_of_columns = [
            with_columns.index(product) if product.columns else -1 for product in region.products
        ]
        kernel = Kernel(
            real,
            streams,
            tuple((first + 2 * k, first + 2 * k + 1) for k in range(len(read.differences))),
            step,
            tuple(
                (*(numbers[name] for name in product.pair), row)
                for product, row in zip(region.products, rows_of_columns, strict=True)
            ),
            tuple(numbers[name] for name, _ in read.copies),
            tuple(numbers[name] for name in region.digests),
        )
        flat = not any(product.rows or product.columns for product in region.products)
        return cls(kernel, rows_of_columns, flat, (1 << 32) - 1 if real == "float" else (1 << 64) - 1)


def _parts(n: int, m: int) -> list[tuple[slice, slice]]:
    """A part of the matrix for each of torch's threads: some rows, or a piece of the only one."""
    threads = min(torch.get_num_threads(), n * m // _SHARED) if n * m >= 2 * _SHARED else 1
    length = m if n == 1 else n
    each = -(-length // max(1, threads))
    pieces = [slice(at, min(at + each, length)) for at in range(0, length, max(1, each))] or [
        slice(0, length)
    ]
    return [(slice(None), piece) if n == 1 else (piece, slice(None)) for piece in pieces]


def _numbers(numbers: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _pointers(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(one.data_ptr() for one in tensors))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, "nm_ode_pass")
