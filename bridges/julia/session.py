"""The caller's side: a worker process is started at the first job, kept for the next, and ends with its caller."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from bridges.errors import EngineError
from bridges.julia import protocol
from bridges.julia.conversation import Callbacks, Conversation
from bridges.julia.process import WorkerError, WorkerProcess, start_worker
from bridges.julia.signals import DeferSigint
from bridges.julia.warming import kind_of, options_of
from bridges.problem import Array

GIVE_UP_SECONDS = 3.0
_COMPILE_SECONDS = 600.0

log = logging.getLogger("bridges.julia")
progress = logging.getLogger("bridges.progress")
"""What takes seconds, one line each, at level INFO."""


class WorkerSession:
    """One worker process for one caller, one job at a time; other threads wait.

    Args:
        backend: "module:Class" of what solves in the worker.
        environment: makes the worker's environment; this process's own if None.
        require_ready: called before a start; raises EngineError with the remedy if there is nothing to start.
        give_up_seconds: a worker that is told to give up its job, and does not within this time, is killed.
    """

    def __init__(
        self,
        backend: str,
        environment: Callable[[], dict[str, str]] | None = None,
        require_ready: Callable[[], None] | None = None,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._backend, self._environment, self._require_ready = backend, environment, require_ready
        self._give_up_seconds = give_up_seconds
        self._begin_in_this_process()

    def _begin_in_this_process(self) -> None:
        """Also in a fork, where the lock may be held by a thread that is not there, and the worker is the parent's."""
        self._owner = os.getpid()
        self._lock = WorkerLock()
        self._worker: WorkerProcess | None = None

    @property
    def pid(self) -> int | None:
        """Of the worker process, if one runs."""
        return self._worker.pid if self._worker is not None else None

    def versions(self) -> dict[str, str]:
        """Library → version; starts the worker if need be."""
        with _Job(self) as job:
            return job.worker.versions

    def solve(
        self, job: dict[str, Any], y0: Array, atol: Array | None, callbacks: Callbacks
    ) -> dict[str, Any]:
        """Solve; see `worker.Backend.solve` for `job` and for what is returned.

        Raises:
            WorkerError: the worker is gone, or its solver raised; the next job starts a new one, or uses the same.
            EngineError: there is no worker to start, or no room for the state.
            BaseException: what a callback raised, as the same object, KeyboardInterrupt included.
        """
        with _Job(self) as current:
            rows = current.share(y0)
            if atol is not None:
                rows[protocol.RATE] = atol
            return current.run({**job, "do": "solve"}, {}, callbacks, rows)

    def noisy(
        self, job: dict[str, Any], y0: Array, arrays: dict[str, Array], callbacks: Callbacks
    ) -> dict[str, Any]:
        """Solve stochastic paths from y0: `callbacks.rhs` is the drift, `callbacks.sample` gets each path's end."""
        with _Job(self) as current:
            return current.run({**job, "do": "noisy"}, arrays, callbacks, current.share(y0))

    def laws(self, job: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
        """Solve without callbacks: arrays are sent once, and those of the result are under "arrays"."""
        with _Job(self) as current:
            return current.run({**job, "do": "laws"}, arrays, None, None)

    def warm(self, job: dict[str, Any]) -> None:
        """Compile what this job needs, with a small one of its kind, unless that was done in this worker.

        A Ctrl-C ends the wait, not the compilation: the next job waits for it. What goes wrong in the small job is left
        to the job itself to say.

        Args:
            job: with "do", which says what it is: "solve", "laws" or "noisy".

        Raises:
            WorkerError, EngineError: as `solve`.
        """
        with _Job(self) as current:
            current.warm(job)

    def close(self) -> None:
        """End the worker, if this process started it."""
        with DeferSigint():
            worker, self._worker = self._worker, None
            atexit.unregister(self.close)
            if worker is not None and worker.started_here:
                worker.close()


class _Job:
    """The time in which a session has the lock, and SIGINT is deferred except where it is allowed.

    At its end a worker that is out of sync is killed: it would answer the next job with answers to this one.
    """

    def __init__(self, session: WorkerSession) -> None:
        self._session = session
        self._sigint = DeferSigint()

    def __enter__(self) -> _Job:
        session = self._session
        self._sigint.__enter__()
        try:
            if session._owner != os.getpid():
                session._begin_in_this_process()
            self._lock = session._lock
            self._lock.acquire(self._sigint)
        except BaseException:
            self._sigint.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            worker = self._session._worker
            if worker is not None and not worker.connection.closed and not worker.in_sync:
                worker.kill()
            if worker is not None and worker.connection.closed:
                self._session._worker = None
        finally:
            self._lock.release()
            self._sigint.__exit__(kind, error, traceback)

    @property
    def worker(self) -> WorkerProcess:
        """Runs, and is in sync; it is started if need be."""
        session = self._session
        if session._worker is not None and not session._worker.usable:
            session.close()
        if session._worker is None:
            if session._require_ready is not None:
                session._require_ready()
            progress.info("starting the worker: 5 to 7 s with Julia")
            environment = session._environment() if session._environment is not None else None
            session._worker = start_worker(session._backend, environment, self._sigint)
            atexit.unregister(session.close)  # of a worker before that died
            atexit.register(session.close)
        if session._worker.compiling is not None:
            progress.info("waiting for a compilation that was interrupted")
            try:
                self._await_compilation(session._worker)
            except WorkerError as failure:  # of a job that nobody waits for any more
                log.info("%s", failure)
                session._worker = None
                return self.worker
        return session._worker

    def warm(self, job: dict[str, Any]) -> None:
        worker, kind = self.worker, kind_of(job)
        if kind in worker.compiled:
            return
        progress.info("compiling %s, at its first use in this worker: 1 to 45 s", job["method"])
        try:
            protocol.send_message(worker.connection, {"do": "warm", "job": options_of(job)})
        except (EOFError, OSError):
            raise worker.end_after_failure() from None
        worker.compiling = kind
        self._await_compilation(worker)

    def _await_compilation(self, worker: WorkerProcess) -> None:
        """A Ctrl-C leaves the worker compiling, and in sync: its answer is read at the next job."""
        try:
            if not self._sigint.allow(worker.wait_for_frame, _COMPILE_SECONDS):
                worker.kill()
                raise WorkerError(f"the worker was ended: it compiled for {_COMPILE_SECONDS:g} s")
            protocol.receive_frame(worker.connection)
            ending = protocol.receive_message(worker.connection)
        except (EOFError, OSError):
            raise worker.end_after_failure() from None
        if "text" in ending:
            log.info("%s: %s", ending["kind"], ending["text"])
        assert worker.compiling is not None
        worker.compiled.add(worker.compiling)
        worker.compiling = None

    def share(self, y0: Array) -> Array:
        """The rows of the vectors shared with the worker, y0 in row STATE."""
        rows = self.worker.share_vectors(y0.size, self._sigint).rows
        rows[protocol.STATE] = y0
        return rows

    def run(
        self,
        job: dict[str, Any],
        arrays: dict[str, Array],
        callbacks: Callbacks | None,
        rows: Array | None,
    ) -> dict[str, Any]:
        if arrays:
            job = {**job, "arrays": protocol.describe(arrays)}
        conversation = Conversation(
            self.worker, callbacks, rows, self._sigint, self._session._give_up_seconds
        )
        return conversation.run(job, arrays)


class WorkerLock:
    """One job at a time. A thread that has the lock and asks for it again is refused: it would wait for itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None

    def acquire(self, sigint: DeferSigint) -> None:
        """Wait for the lock; a Ctrl-C ends the wait.

        Raises:
            EngineError: this thread has it already.
        """
        if self._thread == threading.get_ident():
            raise EngineError(
                "a solve was asked for inside the right-hand side of another on the same worker: it would wait for "
                "itself"
            )
        while not self._lock.acquire(timeout=0.1):
            sigint.check()
        self._thread = threading.get_ident()

    def release(self) -> None:
        self._thread = None
        self._lock.release()
