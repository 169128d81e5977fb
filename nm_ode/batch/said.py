"""What a member says while it runs, on standard output and error, goes to its log."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_KEPT = 2**16  # bytes of a log


@contextlib.contextmanager
def said_to(log: Path, *, whole_process: bool) -> Iterator[None]:
    """Within this block what is printed is appended to a file.

    Args:
        whole_process: also what is not printed by Python; else by Python alone, and so that the process's own streams
            can still be printed to.
    """
    with open(log, "a", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
        if whole_process:
            with _descriptors_to(file.fileno()):
                yield
        else:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield


def end_of(log: Path) -> str:
    """The log, or the end of one that is long; "" if there is none."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _KEPT))
            text = file.read().decode("utf-8", "backslashreplace")
    except OSError:
        return ""
    return text if size <= _KEPT else f"[… {size - _KEPT} bytes before]\n{text}"


@contextlib.contextmanager
def _descriptors_to(descriptor: int) -> Iterator[None]:
    before = [os.dup(number) for number in (1, 2)]
    try:
        _flush()
        for number in (1, 2):
            os.dup2(descriptor, number)
        yield
    finally:
        _flush()
        for number, old in zip((1, 2), before, strict=True):
            os.dup2(old, number)
            os.close(old)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
