"""Initialisation from a seed, torch's global random state left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch on the CPU come from `seed` inside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
