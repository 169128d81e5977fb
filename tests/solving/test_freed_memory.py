"""What a solve keeps of freed memory."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from nm_ode.solving.memory import let_go

STATUS = Path("/proc/self/status")


def resident() -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_nothing_is_done_for_a_small_state_and_nothing_fails_anywhere() -> None:
    let_go(np.zeros(3))
    let_go(np.zeros(2**18))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or not STATUS.exists(), reason="of glibc on Linux")
def test_holes_in_the_heap_go_back_to_the_system() -> None:
    let_go(np.zeros(2**18))
    blocks = [bytes(100_000) for _ in range(600)]  # below the size that is mapped on its own
    for block in blocks:
        assert len(block)
    full = resident()
    del blocks[:-1], block  # what is above keeps the heap from shrinking by itself
    let_go(np.zeros(2**18))
    assert resident() < full - 20_000_000
