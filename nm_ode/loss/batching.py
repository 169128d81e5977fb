"""A source's samples on the device: a batch, or chunks of it whose weighted losses add up to its loss."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from nm_ode.data.indices import Samples, count, indices_of, samples_of
from nm_ode.data.prefetch import ReadAhead, is_read_ahead
from nm_ode.data.preparation import Augmentation, PreparedSource
from nm_ode.data.sources import Part, Source, TensorSource, place
from nm_ode.data.trees import flatten, map_leaves
from nm_ode.loss.guards import ProblemError

Reduction: TypeAlias = Literal["mean", "sum"]
"""How the loss over a batch comes from those over its samples."""

A_FEW = 64
"""So many samples are evaluated where a few are enough to know."""


def first_samples(most: int, chunk_size: int | None = None) -> slice:
    """The first ones, no more than are evaluated together."""
    return slice(0, min(most, chunk_size or most))


def by_chance(n: int, seed: int = 0) -> Tensor:
    """The numbers below n in an order by chance, the same at every call, for data may be sorted by class."""
    return torch.randperm(n, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


def spread_samples(n: int, count: int) -> Tensor:
    """So many of n, evenly from the first to the last: what is sorted by label is met in all its parts."""
    return torch.linspace(0, n - 1, min(count, n), dtype=torch.float64, device="cpu").round().long()


class DeviceBatches:
    """Batches of a source on a device, floating-point leaves in one dtype.

    What is in memory is placed once and for all; any other source is read and placed a batch or a chunk at a time.
    Images that are to be prepared are placed in bytes, and a batch of them is prepared on the device.

    Args:
        chunk_size: the most samples in a chunk; None for whole batches.

    Attributes:
        source: the samples; on the device already if they are in memory.
        reduction: what the weights of chunks go by.
        scale: factor of the loss, which is in the weights.
        ghosts: are the chunks of more samples than one has batches of their own: of nearly equal size, and of all
            samples in a fixed order by chance?
        chosen: are these samples that were asked for one by one, whose order stays as it is?
    """

    def __init__(
        self, source: Source, device: torch.device, dtype: torch.dtype, chunk_size: int | None
    ) -> None:
        self.source: Source = (
            source.placed(device, dtype) if isinstance(source, TensorSource | PreparedSource) else source
        )
        self.chunk_size = chunk_size
        self.reduction: Reduction = "mean"
        self.scale = 1.0
        self.ghosts = self.chosen = False
        self._ahead: ReadAhead | None = None
        self._device, self._dtype = device, dtype

    def __len__(self) -> int:
        return len(self.source)

    @property
    def in_memory(self) -> bool:
        """Are the samples on the device already?"""
        source = self.source
        return source.in_memory if isinstance(source, PreparedSource) else isinstance(source, TensorSource)

    @property
    def augmentation(self) -> Augmentation | None:
        """By which index i + N·e is sample i in its e-th augmentation; None where there is none."""
        return self.source.augmentation if isinstance(self.source, PreparedSource) else None

    def count(self, samples: Samples) -> int:
        """How many samples are asked for.

        Raises:
            ProblemError: none.
        """
        wanted = self._wanted(samples)
        n = len(wanted) if isinstance(wanted, Tensor) else count(wanted, len(self))
        if n == 0:
            raise ProblemError("the loss over no samples is not defined: `samples` is empty")
        return n

    def batch(self, samples: Samples) -> Any:
        """These samples as one batch on the device."""
        samples = self._wanted(samples)
        return self._made(self._read(samples) if self._ahead is None else self._ahead.taken(samples), samples)

    def unprepared(self, samples: Samples) -> Any:
        """The same with images in bytes: for who looks at labels, or at values that are not finite."""
        taken = self._read(self._wanted(samples))
        return taken if self.in_memory else place(taken, self._device, self._dtype)

    @contextmanager
    def read_ahead(self, each: Iterator[Samples]) -> Iterator[Iterator[Samples]]:
        """A context in which there are the same samples, whose batches a thread reads ahead where that is worth it."""
        if not is_read_ahead(self.source):
            yield each
            return
        before = self._ahead
        with ReadAhead(self._read) as ahead:
            self._ahead = ahead
            try:
                yield ahead.following(each, self._parts)
            finally:
                self._ahead = before

    def chunks(self, samples: Samples) -> Iterator[tuple[Any, float]]:
        """Batches with their weights; the weighted sum of their losses is the loss over the samples.

        Raises:
            ProblemError: there is no sample.
        """
        given = samples = self._wanted(samples)
        n = self.count(samples)
        if self.chunk_size is None or self.chunk_size >= n:
            yield self.batch(samples), self.scale
            return
        if self.ghosts and not isinstance(samples, Tensor):
            samples = indices_of(samples, len(self))
            if not self.chosen:
                samples = samples[by_chance(n)]
        pieces = self.pieces(samples, self.chunk_size)
        known = self._ahead is not None and isinstance(given, Tensor)  # the loop's, read ahead by it
        if known or not is_read_ahead(self.source):
            for part in pieces:
                yield self.batch(part), self.weight(self.count(part), n)
            return
        with ReadAhead(self._read) as ahead:
            for piece in ahead.following(pieces, lambda piece: [piece]):
                yield self._made(ahead.taken(piece), piece), self.weight(self.count(piece), n)

    def weight(self, part: int, n: int) -> float:
        """Of the loss over a part of n samples in the loss over all of them."""
        return self.scale * part / n if self.reduction == "mean" else self.scale

    def scaled(self, factor: float) -> DeviceBatches:
        """The same samples, their weights times a factor."""
        made = copy.copy(self)
        made.scale = self.scale * factor
        return made

    def pieces(self, samples: Samples, size: int) -> Iterator[Tensor | slice]:
        """The samples in order, no more than `size` at a time."""
        samples = self._wanted(samples)
        if isinstance(samples, Tensor):
            yield from self.cut(samples, size)
            return
        everywhere = range(len(self)) if samples is None else range(len(self))[samples]
        for start in range(0, len(everywhere), size):
            some = everywhere[start : start + size]
            yield slice(some.start, some.stop, some.step)

    def cut(self, samples: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Indices in parts of no more than `size`."""
        if self.ghosts:
            found: tuple[Tensor, ...] = samples.tensor_split(-(-samples.shape[dim] // size), dim=dim)
        else:
            found = samples.split(size, dim=dim)
        return found

    def _parts(self, samples: Samples) -> Iterable[Samples]:
        """As which the samples of a step are taken; all of them are read ahead as chunks, if at all."""
        if not isinstance(samples, Tensor):
            return []
        return self.pieces(samples, self.chunk_size or len(samples))

    def _read(self, samples: Samples) -> Any:
        """Images in bytes; for a GPU, where it can fetch them while it computes."""
        source = self.source
        try:
            taken = source.raw(samples) if isinstance(source, PreparedSource) else source.take(samples)
        except IndexError:
            samples_of(samples, len(self))  # says which sample there is not
            raise
        if self._device.type == "cuda" and is_read_ahead(source):
            return map_leaves(lambda leaf: leaf.pin_memory() if isinstance(leaf, Tensor) else leaf, taken)
        return taken

    def _made(self, taken: Any, samples: Samples) -> Any:
        """What was read, on the device and prepared."""
        if not self.in_memory:
            taken = place(taken, self._device, self._dtype, non_blocking=is_read_ahead(self.source))
        if isinstance(self.source, PreparedSource):
            return self.source.prepare(taken, samples, self._dtype)
        return taken

    def _wanted(self, samples: Samples) -> Samples:
        """What a source can take; an index vector into memory as it is, for torch itself looks at its range."""
        virtual = self.augmentation is not None
        plain = isinstance(samples, Tensor) and samples.dtype == torch.int64 and samples.ndim == 1
        if plain and not virtual and self.in_memory and self._device.type == "cpu":
            return samples
        return samples_of(samples, len(self), virtual=virtual)

    def subset(self, samples: Tensor | slice) -> DeviceBatches:
        """Of these samples alone. As many as fit in a chunk are read at once; more stay where they are.

        So do those whose batch cannot be taken apart again, for not every leaf has the samples along its first
        dimension (texts, constants, sequences before samples).
        """
        wanted = self._wanted(samples)
        assert wanted is not None
        samples, n = wanted, self.count(wanted)
        made, prepared = copy.copy(self), isinstance(self.source, PreparedSource)
        made._ahead = None
        made.chosen = self.chosen or isinstance(samples, Tensor)
        if (self.in_memory and not prepared) or n <= (self.chunk_size or n):
            batch = self.batch(samples)
            if self.in_memory or all(_has_samples(leaf, n) for leaf in flatten(batch)[0]):
                made.source = TensorSource(batch)
                return made
        source = self.source
        made.source = source.part(samples) if isinstance(source, PreparedSource) else Part(source, samples)
        return made


def _has_samples(leaf: Any, n: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == n
