"""What this machine has for a batch: cores, memory, GPUs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dask.system import CPU_COUNT

SHARE = 0.95
"""Of a process's memory: beyond it a member is given up, before the system ends the process."""


@dataclass(frozen=True)
class Workers:
    """Processes of this machine for a batch.

    Attributes:
        count: 0 for this process alone.
        threads: of each.
        memory: bytes that each may have.
        gpus: that they share, one each; 0 for none.
    """

    count: int
    threads: int
    memory: int
    gpus: int = 0


def workers_for(
    members: int, devices: Iterable[str], wanted: int | None = None, threads: int | None = None
) -> Workers:
    """As many as there are cores, or GPUs for members that want one, and members to run.

    Args:
        devices: of the members.
        wanted, threads: where the user has said how many.
    """
    gpus = _gpus() if "cuda" in set(devices) else 0
    count = wanted
    if count is None:
        count = min(members, gpus or CPU_COUNT)
        count = 0 if count <= 1 else count
    return Workers(
        count,
        threads or max(1, CPU_COUNT // max(1, count)),
        _memory() // max(1, count),
        gpus if count else 0,
    )


def _memory() -> int:
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
