"""The samples of a problem, as it takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from nm_ode.data.indices import Samples
from nm_ode.data.preparation import Augmentation
from nm_ode.data.sources import Source, TensorSource
from nm_ode.loss.batching import DeviceBatches
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.objective import LossFunction


class HasSamples:
    """What a `Problem` is: one of a loss over samples."""

    loss_fn: LossFunction | None
    _batches: DeviceBatches

    @property
    def n_samples(self) -> int:
        """Number of samples in the data."""
        return len(self._batches)

    @property
    def augmentation(self) -> Augmentation | None:
        """Of its images, in `train` on batches: sample i of N in its e-th augmentation has the index i + N·e."""
        return self._batches.augmentation

    @property
    def source(self) -> Source:
        """The samples; on the problem's device already if they are in memory."""
        return self._batches.source

    @property
    def chunk_size(self) -> int | None:
        """The most samples in one forward pass; None if all are."""
        return self._batches.chunk_size

    @property
    def x(self) -> Any:
        """All inputs, of data (x, y) in memory."""
        return self._pair()[0]

    @property
    def y(self) -> Any:
        """All targets, of data (x, y) in memory."""
        return self._pair()[1]

    @property
    def ghost_batches(self) -> bool:
        """Is the loss over more than chunk_size samples one of batches of that size?"""
        return self._batches.ghosts

    def batch(self, samples: Samples = None) -> Any:
        """These samples (all if None) as one batch on the device."""
        return self._batches.batch(samples)

    def read_ahead(self, each: Iterator[Samples]) -> AbstractContextManager[Iterator[Samples]]:
        """A context with the same samples for one step after the other, read ahead where they lie on disk."""
        return self._batches.read_ahead(each)

    def chunks(self, samples: Samples = None) -> Iterator[Any]:
        """The samples on the device, no more than `chunk_size` in a batch."""
        return (batch for batch, _ in self._batches.chunks(samples))

    def _pair(self) -> Any:
        source = self.source
        if self.loss_fn is None or not isinstance(source, TensorSource):
            raise ProblemError("x and y are those of data (x, y) in memory; take problem.batch(samples)")
        return source.tree
