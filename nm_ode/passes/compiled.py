"""A region's sums by a kernel in C (kernel.c), which reads each vector once: where there is a compiler, on the CPU.

It is compiled anew in each process, in half a second, for the processor that it runs on, and left nowhere.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nm_ode.passes.regions import Read, Reduced, Region

SWITCH = "NM_ODE_COMPILE"
"""Environment variable: "0" lets torch's operations make all sums."""

WORTH_IT = 1_000_000
"""Parameters from which on a kernel is compiled."""

_NAMES = {torch.float32: "float", torch.float64: "double"}
_BLOCK = 512  # entries of a vector that are read at a time
_MOST = 32  # vectors that the kernel reads at once
_SHARED = 1 << 17  # entries from which on threads share a region

# Sums may be made in any order, which is what vector instructions need. Not -ffast-math: with it a library, when it is
# loaded, lets the whole process flush small numbers to zero.
_FLAGS = ("-O3", "-march=native", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math")

_log = logging.getLogger("nm_ode")


class Compiled:
    """Sums by the kernel.

    Args:
        library: of `library()`.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        self._kernels = {dtype: getattr(library, f"nm_pass_{name}") for dtype, name in _NAMES.items()}
        for kernel in self._kernels.values():
            kernel.restype = None
            kernel.argtypes = [
                *(number, number, number),
                *(number, pointer, pointer),
                *(number, pointer, number, pointer, pointer, number, pointer),
                *(number, pointer, pointer, pointer, pointer),
            ]
        self._prepared: dict[tuple[Any, ...], _Prepared] = {}

    @staticmethod
    def takes(region: Region, read: Read) -> bool:
        """Is the region such as the kernel reads?"""
        first = read.tensors[0]
        return (
            first.dtype in _NAMES
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

    def __call__(self, region: Region, read: Read) -> list[Reduced]:
        """One for each of the region's products."""
        key = (region, *read.whole, None, *read.differences)
        if key not in self._prepared:
            self._prepared[key] = _Prepared(region, read)
        prepared, (n, m) = self._prepared[key], region.matrix
        streams = [*read.whole.values(), *(one for pair in read.differences.values() for one in pair)]
        copies = [copy for _, copy in read.copies]
        if prepared.may_be_flat and all(one.is_contiguous() for one in [*streams, *copies]):
            n, m = 1, n * m
            streams, copies = [one.view(n, m) for one in streams], [one.view(n, m) for one in copies]

        def part(where: tuple[slice, slice] | None) -> tuple[Tensor, Tensor]:
            mine = (
                [streams, copies]
                if where is None
                else [[o[where] for o in some] for some in (streams, copies)]
            )
            return self._sums(prepared, *mine)

        parts = _parts(n, m)
        results = [part(None)] if len(parts) == 1 else list(_threads().map(part, parts))
        rows, columns = results[0]
        if len(parts) > 1:
            by_row = [some for some, _ in results]
            rows = torch.stack(by_row).sum(0) if n == 1 else torch.cat(by_row, 1)
            # Only in parts of rows are there columns.
            columns = torch.stack([some for _, some in results]).sum(0) if prepared.columns else columns
        return [
            Reduced(total, rows[k] if product.rows else None, columns[row] if row >= 0 else None)
            for k, (product, row, total) in enumerate(
                zip(region.products, prepared.rows_of_columns, rows.sum(1).unbind(), strict=True)
            )
        ]

    def _sums(
        self, prepared: _Prepared, streams: list[Tensor], copies: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """By row, (products, n), and by column, (columns, m)."""
        n, m = streams[0].shape
        dtype = streams[0].dtype
        rows = torch.zeros(prepared.products, n, dtype=torch.float64, device="cpu")
        columns = torch.zeros(prepared.columns, m, dtype=torch.float64, device="cpu")
        room = torch.empty(prepared.differences * _BLOCK + prepared.columns * m, dtype=dtype, device="cpu")
        self._kernels[dtype](
            n,
            m,
            n,
            len(streams),
            _pointers(streams),
            _numbers([one.stride(0) for one in streams]),
            prepared.differences,
            prepared.of_differences,
            prepared.products,
            prepared.of_products,
            rows.data_ptr(),
            prepared.columns,
            columns.data_ptr(),
            len(copies),
            prepared.copied,
            _pointers(copies),
            _numbers([one.stride(0) for one in copies]),
            room.data_ptr(),
        )
        return rows, columns


class _Prepared:
    """What the kernel is told of a region, whichever tensors it reads."""

    def __init__(self, region: Region, read: Read) -> None:
        first, streams = len(read.whole), len(read.whole) + 2 * len(read.differences)
        numbers = {name: i for i, name in enumerate(read.whole)}
        numbers |= {name: streams + k for k, name in enumerate(read.differences)}
        with_columns = [product for product in region.products if product.columns]
        self.may_be_flat = not any(product.rows or product.columns for product in region.products)
        self.rows_of_columns = [
            with_columns.index(product) if product.columns else -1 for product in region.products
        ]
        self.differences, self.products, self.columns = (
            len(read.differences),
            len(region.products),
            len(with_columns),
        )
        self.of_differences = _numbers([first + k for k in range(2 * self.differences)])
        self.of_products = _numbers(
            [
                number
                for product, row in zip(region.products, self.rows_of_columns, strict=True)
                for number in (*(numbers[name] for name in product.pair), row)
            ]
        )
        self.copied = _numbers([numbers[name] for name, _ in read.copies])


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


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel; None where there is no compiler that can make it, or none is wanted."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or os.environ.get(SWITCH) == "0" or os.name != "posix":
        return None
    source = Path(__file__).with_name("kernel.c").read_text()
    both = [
        source.replace("NAME", f"nm_pass_{real}").replace("REAL", real)
        for real in dict.fromkeys(_NAMES.values())
    ]
    with tempfile.TemporaryDirectory(prefix="nm_ode") as folder:
        made = Path(folder, "kernel.so")
        try:
            subprocess.run(
                [
                    *compiler.split(),
                    *_FLAGS,
                    f"-DBLOCK={_BLOCK}",
                    "-x",
                    "c",
                    "-",
                    "-shared",
                    "-fPIC",
                    "-o",
                    str(made),
                ],
                input="\n".join(both),
                text=True,
                check=True,
                capture_output=True,
                timeout=60,
            )
            return ctypes.CDLL(str(made))
        except (OSError, subprocess.SubprocessError) as error:
            _log.info(
                "sums over parameters are made by torch's operations: %s cannot make a kernel (%s)",
                compiler,
                error,
            )
            return None
