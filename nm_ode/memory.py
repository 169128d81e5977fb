"""Is there memory for what is about to be made? Asked before it is taken."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nm_ode.errors import ArgumentError

if TYPE_CHECKING:
    import torch

_CGROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes that this process may still take; None where the system does not say."""
    found = [free for free in (_of_the_system(), _of_the_group()) if free is not None]
    return min(found) if found else None


def available_on(device: torch.device) -> int | None:
    """Bytes that this process may still take where tensors of a device lie; None where the system does not say.

    On a GPU that is what nobody has, and what torch has kept of tensors that are gone.
    """
    if device.type != "cuda":
        return available()
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def require_memory(needed: int, what: str, remedy: str, free: int | None = None) -> None:
    """Refuse what does not fit.

    Args:
        needed: bytes, at least.
        what: they are for, as the start of a sentence.
        free: on a device; of the host if None.

    Raises:
        ArgumentError: there is less; the sentence says how much it would take and how much there is.
    """
    free = available() if free is None else free
    if free is not None and needed > free:
        raise ArgumentError(
            f"{what} would take {in_words(needed)} of memory, and {in_words(free)} are free: {remedy}"
        )


def trim() -> None:
    """Give back what the C library keeps of freed memory; elsewhere than under glibc nothing is done."""
    if sys.platform == "linux":
        given_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if given_back is not None:
            given_back(0)


def in_words(size: int) -> str:
    """Bytes for a reader: "3.2 GB"; beyond any machine a power of ten."""
    if size >= 10**18:
        return f"10^{(size // 10**9).bit_length() * 3 // 10} GB"
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


def _of_the_system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system knows them
        return None


def _of_the_group() -> int | None:
    """What a container may still take."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        if limit == "max":
            return None
        reclaimed = 0
        for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            reclaimed += int(value) if name == "inactive_file" else 0
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        return max(0, int(limit) - used + reclaimed)
    except (OSError, ValueError):
        return None
