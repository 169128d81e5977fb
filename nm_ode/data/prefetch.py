"""Batches that are read from the disk by a thread while others are computed with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from torch import Tensor

from nm_ode.data.indices import Samples
from nm_ode.data.preparation import PreparedSource
from nm_ode.data.sources import ArraySource, Part, Source

_AHEAD = 2  # batches, beside the one that is in use


def is_read_ahead(source: Source) -> bool:
    """May a thread read it, and is it worth one? Arrays on disk; nobody knows what a user's own Dataset bears."""
    while isinstance(source, Part | PreparedSource):
        source = source.source
    return isinstance(source, ArraySource)


class ReadAhead:
    """A context with one thread, which reads batches in the order in which they are wanted.

    What is read depends on the indices alone, and who asks for it waits until it is there: nothing but time depends on
    the thread. What goes wrong in it is raised where the batch is asked for. At the end of the context, by an exception
    or Ctrl-C too, it reads no more than what it has begun.

    Args:
        read: a batch in memory, of indices.
    """

    def __init__(self, read: Callable[[Samples], Any]) -> None:
        self._read = read
        self._reading: dict[Any, Future[Any]] = {}

    def __enter__(self) -> ReadAhead:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nm_ode reads")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._reading.clear()

    def following(
        self, each: Iterable[Samples], parts: Callable[[Samples], Iterable[Samples]]
    ) -> Iterator[Samples]:
        """The same indices in the same order, while the batches of the next ones are read.

        Args:
            parts: in which those of one are taken; none of what is not to be read ahead.
        """
        coming: deque[Samples] = deque()
        for samples in each:
            for part in parts(samples):
                key = _key(part)
                if key not in self._reading:
                    self._reading[key] = self._thread.submit(self._read, part)
            coming.append(samples)
            if len(coming) > _AHEAD:
                yield coming.popleft()
        yield from coming

    def taken(self, samples: Samples) -> Any:
        """The batch, once: what was read, or read now."""
        reading = self._reading.pop(_key(samples), None)
        return self._read(samples) if reading is None else reading.result()


def _key(samples: Samples) -> Any:
    if isinstance(samples, Tensor):
        return samples.shape, samples.numpy().tobytes()
    return None if samples is None else (samples.start, samples.stop, samples.step)
