"""Writing to a store by a thread of its own, so that who records does not wait for the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import xarray as xr

from nm_ode.results.segments import Arrays
from nm_ode.results.stream.arrays import Rows
from nm_ode.results.stream.writer import RunWriter

WAITING = 2
"""Batches of rows that wait for the disk at most; whoever brings another one waits too."""


@dataclass
class _Batch:
    rows: Sequence[Rows]
    facts: Mapping[str, Any]
    state: Arrays
    fixed: xr.Dataset | None
    commit: bool
    then: Callable[[], None] | None
    done: threading.Event = field(default_factory=threading.Event)


class BackgroundWriter:
    """Appends to a store, in the order in which rows are put.

    Args:
        writer: which nobody else uses from now on.
        every: seconds from one commit to the next; after a kill no more is missing than came in this time.

    Attributes:
        error: what writing ended with; nothing is written after it.
    """

    def __init__(self, writer: RunWriter, every: float) -> None:
        self._writer, self._every = writer, every
        self.error: Exception | None = None
        self._queue: Queue[_Batch | None] = Queue(WAITING)
        self._committed = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="nm_ode recorder", daemon=True)
        self._thread.start()

    def put(
        self,
        rows: Sequence[Rows],
        facts: Mapping[str, Any],
        state: Arrays,
        *,
        fixed: xr.Dataset | None = None,
        commit: bool = False,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Hand on rows, and wait while too many wait already.

        Args:
            facts, state: of the moment after these rows, as of `RunWriter.commit`.
            fixed: variables that do not grow.
            commit: return when they are on the disk, or nothing is written any more.
            then: called in the thread when they are.
        """
        batch = _Batch(rows, facts, state, fixed, commit, then)
        self._queue.put(batch)
        if commit:
            batch.done.wait()

    def close(self) -> None:
        """Write what waits, end the thread and let others write to the store."""
        self._queue.put(None)
        self._thread.join()
        self._writer.close()

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                if self.error is None:
                    self._write(batch)
            except Exception as error:  # told by whoever puts the next rows
                self.error = error
            finally:
                batch.done.set()
                batch = None  # or its rows would be held until the next ones come

    def _write(self, batch: _Batch) -> None:
        if batch.fixed is not None:
            self._writer.keep(batch.fixed)
        self._writer.add(batch.rows)
        if batch.commit or time.monotonic() - self._committed >= self._every:
            self._writer.commit(batch.facts, batch.state)
            self._committed = time.monotonic()
        if batch.then is not None:
            batch.then()
