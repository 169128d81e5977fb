"""The tensors of a batch of any structure (`nm_ode.data.trees`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nm_ode.data.sources import place
from nm_ode.data.trees import flatten

Batch: TypeAlias = Any
"""A tree whose leaves are tensors, and what else an objective needs (numbers, texts, None)."""

CPU = torch.device("cpu")


def tensors_of(batch: Batch) -> tuple[Tensor, ...]:
    """The tensors of a batch, in the tree's order."""
    return tuple(leaf for leaf in flatten(batch)[0] if isinstance(leaf, Tensor))


def with_tensors(batch: Batch, tensors: Sequence[Tensor]) -> Batch:
    """The batch with other tensors in the place of its own."""
    leaves, rebuild = flatten(batch)
    given = iter(tensors)
    return rebuild([next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves])


def on_cpu(batch: Batch, dtype: torch.dtype) -> Batch:
    """Floating-point tensors in a dtype, complex ones in its pair."""
    return place(batch, CPU, dtype)


def repeated(part: Tensor, count: int) -> Tensor:
    """The first `count` samples, from the first again where there are fewer."""
    return torch.cat([part] * -(-count // len(part)))[:count]


def at_least(x: Tensor, count: int, seed: int) -> Tensor:
    """Enough samples to tell one from another; more are drawn like those given, and integers are some of them."""
    if len(x) >= count:
        return x
    more = repeated(x, count)
    if not x.is_floating_point() or is_counted(x):
        return more
    noise = torch.randn(more.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    noise[: len(x)] = 0
    return more + (max(float(x.std()), 0.1) if x.numel() > 1 else 1.0) * noise


def is_counted(x: Tensor) -> bool:
    """Integers, or floating-point numbers that are different whole ones: counts, masks, one-hot classes."""
    if x.is_complex() or x.dtype == torch.bool:
        return False
    if not x.is_floating_point():
        return True
    return bool((x == x.round()).all()) and bool((x != x.reshape(-1)[:1]).any())
