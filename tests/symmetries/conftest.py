"""Models and batches that several files of this folder look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nm_ode.symmetries import Symmetries, find_symmetries

Table = dict[str, int]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def integers(most: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(most, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def normal() -> Callable[..., Tensor]:
    return gaussian


@pytest.fixture
def table_of() -> Callable[..., Table]:
    """name → number of charges; fails on a defect, since then a rule is wrong."""

    def table(model: nn.Module, x: Tensor, *kinds: str, **options: object) -> Table:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found: Symmetries = find_symmetries(model, x, **options)  # type: ignore[arg-type]
        assert not found.defects
        return {s.name: s.count for s in found if not kinds or s.kind in kinds}

    return table
