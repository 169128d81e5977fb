"""Random batches like an example, to verify by: all that the loss can meet, or at least other than the example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nm_ode.symmetries.batches import is_counted
from nm_ode.symmetries.ranges import Range

WIDE, MIXED, GIVEN = "drawn", "mixed", "given"
"""Ways of drawing: anew; the example's samples mixed and in another order; the example itself."""


def drawn(
    tensors: Sequence[Tensor], within: Mapping[int, Range], how: str, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """A batch of the example's shapes."""
    if how == GIVEN:
        return tuple(tensors)
    if how == MIXED:
        samples = {len(tensor) for tensor in tensors if tensor.ndim}
        order = {n: torch.randperm(n, generator=generator) for n in sorted(samples)}
        share = torch.rand((), dtype=torch.float64, generator=generator)
        return tuple(_mixed(tensor, order, share) for tensor in tensors)
    return tuple(_anew(tensor, within.get(i), generator) for i, tensor in enumerate(tensors))


def _mixed(tensor: Tensor, order: Mapping[int, Tensor], share: Tensor) -> Tensor:
    """Between two samples, which stays in any convex domain; integers of one of them."""
    if not tensor.ndim:
        return tensor
    other = tensor[order[len(tensor)]]
    return torch.lerp(other, tensor, share.to(tensor.dtype)) if tensor.is_floating_point() else other


def _anew(example: Tensor, within: Range | None, generator: torch.Generator) -> Tensor:
    """Of the example's shape and scale; integers over all that is taken, else of those in the example's column."""
    if is_counted(example):
        made = _of_columns(example, generator)
    elif example.is_floating_point():
        spread = float(example.std()) if example.numel() > 1 else 1.0
        noise = torch.randn(example.shape, dtype=example.dtype, generator=generator, device="cpu")
        made = float(example.mean()) + (spread or 1.0) * noise
    elif example.is_complex():
        made = example + torch.randn(example.shape, dtype=example.dtype, generator=generator, device="cpu")
    else:
        made = torch.rand(example.shape, generator=generator, device="cpu") < 0.5
    if within is None or not bool(within.bounded.any()):
        return made
    integers = _integers(within.low, torch.where(within.bounded, within.high, within.low), generator)
    if within.ignored is not None:
        ignored = torch.rand(integers.shape, generator=generator, device="cpu") < 0.1
        integers = torch.where(ignored, within.ignored, integers)
    return torch.where(within.bounded, integers.to(made.dtype), made)


def _of_columns(example: Tensor, generator: torch.Generator) -> Tensor:
    """Each entry another sample's in its column: columns may mean different things, and not every number something."""
    if not example.ndim or not example.numel():
        return example
    samples = torch.randint(len(example), example.shape, generator=generator, device="cpu")
    return example.gather(0, samples)


def _integers(low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    high = torch.maximum(low, high)
    share = torch.rand(low.shape, dtype=torch.float64, generator=generator, device="cpu")
    return torch.minimum(low + (share * (high - low + 1).double()).long(), high)
