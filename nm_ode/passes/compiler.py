"""Kernels compiled where they are needed, with the C compiler of the machine."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nm_ode.passes.source import Kernel, source_of

SWITCH = "NM_ODE_COMPILE"
"""Environment variable: "0" lets torch's operations make all sums."""

# Sums may be made in any order, which is what vector instructions need. Not -ffast-math: with it a library, when it is
# loaded, lets the whole process flush small numbers to zero.
_ANY_ORDER = ("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno")
_FLAGS = ("-O3", "-march=native", *_ANY_ORDER)

_log = logging.getLogger("nm_ode")


class Compiler:
    """Makes kernels for the processor that it runs on, some tenths of a second each time, and leaves nothing behind.

    Args:
        command: of the compiler.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = [*command, *_FLAGS, "-x", "c", "-", "-shared", "-fPIC", "-o"]
        self._made: dict[Kernel, Any] = {}
        self.works = True

    def prepare(self, kernels: Sequence[Kernel]) -> bool:
        """Compile those that are not there yet. Are they all there then?"""
        missing = [kernel for kernel in dict.fromkeys(kernels) if kernel not in self._made]
        if missing and self.works:
            try:
                library = self._compiled(source_of(missing))
                self._made |= {kernel: _function(library, kernel) for kernel in missing}
            except (OSError, subprocess.SubprocessError) as error:
                self.works = False
                _log.info(
                    "sums over parameters are made by torch's operations: %s cannot make a kernel (%s)",
                    self._command[0],
                    error,
                )
        return self.works or not missing

    def __getitem__(self, kernel: Kernel) -> Any:
        """The function of one that is there."""
        return self._made[kernel]

    def _compiled(self, source: str) -> ctypes.CDLL:
        with tempfile.TemporaryDirectory(prefix="nm_ode") as folder:
            made = str(Path(folder, "kernel.so"))
            subprocess.run(
                [*self._command, made],
                input=source.encode(),
                check=True,
                capture_output=True,
                timeout=60,
            )
            return ctypes.CDLL(made)


def _function(library: ctypes.CDLL, kernel: Kernel) -> Any:
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    function = getattr(library, kernel.name)
    function.restype = None
    function.argtypes = [number, number, *(pointer,) * 10, number, number]
    return function


@cache
def compiler() -> Compiler | None:
    """That of this machine; None where there is none, or none is wanted."""
    command = (
        os.environ.get("CC", "").strip() or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    )
    if command is None or os.environ.get(SWITCH) == "0" or os.name != "posix":
        return None
    return Compiler(command.split())
