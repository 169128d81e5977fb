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

from nm_ode.passes.regions import Read, Reduced, Region, float64

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
        self._library = library

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
        n, m = region.matrix
        streams = [*read.whole.values(), *(one for pair in read.differences.values() for one in pair)]
        copies = [copy for _, copy in read.copies]
        flat = not any(product.rows or product.columns for product in region.products) and all(
            one.is_contiguous() for one in [*streams, *copies]
        )
        if flat:
            n, m = 1, n * m
            streams, copies = [one.view(n, m) for one in streams], [one.view(n, m) for one in copies]
        numbers = {
            name: i for i, name in enumerate([*read.whole, *(None,) * (len(streams) - len(read.whole))])
        }
        first = len(read.whole)
        differences = []
        for k, name in enumerate(read.differences):
            numbers[name] = len(streams) + k
            differences += [first + 2 * k, first + 2 * k + 1]
        products, with_columns = [], [product for product in region.products if product.columns]
        for product in region.products:
            row = with_columns.index(product) if product.columns else -1
            products += [*(numbers[name] for name in product.pair), row]
        copied = [numbers[name] for name, _ in read.copies]
        call = _Call(self._library, streams, copies, differences, products, len(with_columns), copied)
        parts = _parts(n, m)
        results = list(_threads().map(call, parts)) if len(parts) > 1 else [call(parts[0])]
        by_row = [rows for rows, _ in results]
        rows = sum(by_row[1:], by_row[0]) if n == 1 else torch.cat(by_row, 1)
        columns = sum((some for _, some in results[1:]), results[0][1])
        found = []
        for k, product in enumerate(region.products):
            own = columns[with_columns.index(product)] if product.columns else None
            found.append(Reduced(float64(rows[k]), rows[k] if product.rows else None, own))
        return found


class _Call:
    """The kernel with all but the part of the region that it reads."""

    def __init__(
        self,
        library: ctypes.CDLL,
        streams: Sequence[Tensor],
        copies: Sequence[Tensor],
        differences: Sequence[int],
        products: Sequence[int],
        n_columns: int,
        copied: Sequence[int],
    ) -> None:
        self._dtype = streams[0].dtype
        self._kernel = getattr(library, f"nm_pass_{_NAMES[self._dtype]}")
        self._streams, self._copies = streams, copies
        self._lists = [_numbers(some) for some in (differences, products, copied)]
        self._counts = (len(differences) // 2, len(products) // 3, n_columns, len(copied))

    def __call__(self, part: tuple[slice, slice]) -> tuple[Tensor, Tensor]:
        """Sums by row, (products, n), and by column, (columns, m), of this part."""
        streams, copies = ([one[part] for one in some] for some in (self._streams, self._copies))
        n, m = streams[0].shape
        n_differences, n_products, n_columns, n_copies = self._counts
        differences, products, copied = self._lists
        rows = torch.zeros(n_products, n, dtype=torch.float64)
        columns = torch.zeros(n_columns, m, dtype=torch.float64)
        room = torch.empty(n_differences * _BLOCK + n_columns * m, dtype=self._dtype)
        self._kernel(
            *map(ctypes.c_int64, (n, m, n, len(streams))),
            _pointers(streams),
            _numbers([one.stride(0) for one in streams]),
            ctypes.c_int64(n_differences),
            differences,
            ctypes.c_int64(n_products),
            products,
            _pointer(rows),
            ctypes.c_int64(n_columns),
            _pointer(columns),
            ctypes.c_int64(n_copies),
            copied,
            _pointers(copies),
            _numbers([one.stride(0) for one in copies]),
            _pointer(room),
        )
        return rows, columns


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


def _pointer(tensor: Tensor) -> Any:
    return ctypes.c_void_p(tensor.data_ptr())


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
