"""Which samples each step of a run on minibatches sees."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from nm_ode.arguments import as_count, said
from nm_ode.errors import ArgumentError

BatchSize: TypeAlias = int | Literal["full"]
"""Samples in a minibatch, or "full": each step sees all.

Example:
    >>> from typing import get_args
    >>> from nm_ode.data import BatchSize
    >>> get_args(BatchSize)
    (<class 'int'>, typing.Literal['full'])
"""

_AUGMENTATIONS = 2**31  # to draw from: so many that hardly two are the same


def as_batch_size(given: Any, n_samples: int) -> BatchSize:
    """What a caller gives as the size of a batch.

    Raises:
        ArgumentError: neither "full" nor a number of samples that there are.
    """
    if isinstance(given, str) and given == "full":
        return "full"
    try:
        return as_count(given, "batch_size", most=n_samples)
    except ArgumentError:
        raise ArgumentError(
            f"batch_size must be 'full' or from 1 to {n_samples}, the number of samples; {said(given)} was given"
        ) from None


def sample_batches(
    n_samples: int, batch_size: BatchSize, seed: int, *, augmented: bool = False
) -> Iterator[Tensor | None]:
    """Endless index vectors, epoch after epoch in an order fixed by the seed; None for the whole data.

    Args:
        n_samples: N.
        batch_size: "full", or B; the last batch of an epoch may be smaller.
        seed: of the order.
        augmented: virtual indices: in the e-th epoch, counted from 1, i + N·e for sample i of N, in its e-th
            augmentation.

    Example:
        >>> from itertools import islice
        >>> from nm_ode.data import sample_batches
        >>> [len(batch) for batch in islice(sample_batches(10, 4, seed=0), 4)]
        [4, 4, 2, 4]
        >>> list(islice(sample_batches(10, "full", seed=0), 2))
        [None, None]
    """
    for rows in member_batches(n_samples, batch_size, [seed], augmented=augmented):
        yield None if rows is None else rows[0]


def drawn_samples(
    n_samples: int, size: int | tuple[int, int], generator: torch.Generator, *, augmented: bool = False
) -> Tensor:
    """Independent samples, drawn with replacement: indices of this size.

    Args:
        augmented: each in an augmentation of its own, also drawn.
    """
    shape = (size,) if isinstance(size, int) else size
    samples = torch.randint(n_samples, shape, generator=generator, device="cpu")
    if augmented:
        samples += n_samples * torch.randint(1, _AUGMENTATIONS, shape, generator=generator, device="cpu")
    return samples


def member_batches(
    n_samples: int, batch_size: BatchSize, seeds: Sequence[int], *, augmented: bool = False
) -> Iterator[Tensor | None]:
    """`sample_batches` of each seed, as rows: shape (members, samples of a batch)."""
    if batch_size == "full":
        while True:
            yield None
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    orders = [RandomSampler(range(n_samples), generator=generator) for generator in generators]
    for number in itertools.count(1):
        with torch.device("cpu"):  # the sampler's permutations are made on the default device
            epoch = torch.stack([torch.tensor(list(order)) for order in orders])
        if augmented:
            epoch += number * n_samples
        yield from epoch.split(batch_size, dim=1)
