"""The worker process: started, greeted, and ended in every way that one can end."""

from __future__ import annotations

import collections
import json
import logging
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import IO, Any, TypeAlias

from bridges.errors import NmOdeError
from bridges.julia import protocol
from bridges.julia.protocol import Vectors
from bridges.julia.signals import DeferSigint
from bridges.julia.warming import Kind

log = logging.getLogger("bridges.julia")

_START_SECONDS = 600.0  # Julia may have to compile its packages
_EXIT_SECONDS = 3.0  # for a process whose connection is closed to end by itself
_STDERR_LINES = 3  # kept for error messages


class WorkerError(NmOdeError, RuntimeError):
    """The worker process could not start, ended, or its solver raised."""


class WorkerProcess:
    """A worker process that has started, and its connection.

    Attributes:
        connection: to the worker, which answers one job at a time.
        versions: library → version.
        in_sync: the connection is between two jobs. If it is not, the next job would read the answers to this one, and
            the worker must be killed.
        vectors: shared with the worker; None before the first state.
        compiled: kinds of jobs (`warming.kind_of`) whose code is compiled.
        compiling: the kind that it compiles now, whose answer is not read yet; None if none.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        connection: Connection,
        versions: dict[str, str],
        stderr_lines: collections.deque[str],
    ) -> None:
        self.connection, self.versions = connection, versions
        self.in_sync = True
        self.vectors: Vectors | None = None
        self.compiled: set[Kind] = set()
        self.compiling: Kind | None = None
        self._process, self._stderr_lines = process, stderr_lines
        self._parent = os.getpid()
        self._readable = _readable(connection)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def usable(self) -> bool:
        """It runs, and its connection is open."""
        return not self.connection.closed and self._process.poll() is None

    @property
    def started_here(self) -> bool:
        """By this process, not by the parent of which it is a fork."""
        return self._parent == os.getpid()

    def wait_for_frame(self, seconds: float | None) -> bool:
        """Until something is to be read, or the worker is gone; False after `seconds`. Reads nothing."""
        return self._readable(seconds)

    def share_vectors(self, n: int, sigint: DeferSigint) -> Vectors:
        """The vectors for a state of length n; those of the last job where they fit.

        Raises:
            WorkerError: the worker is gone, or cannot open them.
            EngineError: there is no room.
        """
        if self.vectors is not None and self.vectors.n == n:
            return self.vectors
        if self.vectors is not None:
            self.vectors.close()
        self.vectors = vectors = Vectors.create(n)
        self.in_sync = False
        try:
            failure = sigint.allow(self._let_open, vectors)
        except (EOFError, OSError):
            raise self.end_after_failure() from None
        self.in_sync = True
        if failure is not None:
            vectors.close()
            self.vectors = None
            raise WorkerError(f"{failure['kind']}: {failure['text']}")
        return vectors

    def _let_open(self, vectors: Vectors) -> dict[str, Any] | None:
        vectors.send(self.connection, self.pid)
        operation, _ = protocol.receive_frame(self.connection)
        return protocol.receive_message(self.connection) if operation == protocol.FAILED else None

    def end_after_failure(self) -> WorkerError:
        """Release what belongs to a worker whose connection broke, and say how it ended."""
        try:
            status: int | str = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = f"{self._process.wait()} (killed: its connection had broken for {_EXIT_SECONDS:g} s)"
        self._release()
        return WorkerError(
            f"the worker ended with status {status}{_last_lines(self._stderr_lines)}; the next solve starts a new one"
        )

    def kill(self) -> None:
        """End it now, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._release()

    def close(self) -> None:
        """End it by closing its connection, or by force if that does not help."""
        self._release()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _release(self) -> None:
        self.connection.close()
        if self.vectors is not None:
            self.vectors.close()


def start_worker(backend: str, environment: dict[str, str] | None, sigint: DeferSigint) -> WorkerProcess:
    """Start a worker and wait until it is ready.

    Args:
        backend: "module:Class" of what solves in the worker.
        environment: of the worker; this process's own if None.
        sigint: checked while waiting; a Ctrl-C kills the process that was started.

    Raises:
        WorkerError: it did not start; with the reason, or the last lines that it printed.
    """
    stderr_lines: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
    process, connect = _begin(backend, dict(os.environ if environment is None else environment))
    assert process.stderr is not None
    threading.Thread(target=_write_log, args=(process.stderr, stderr_lines), daemon=True).start()
    try:
        connection = connect(stderr_lines, sigint)
        versions = _first_message(connection, process, stderr_lines, sigint)["versions"]
    except BaseException:
        process.kill()
        process.wait()
        raise
    return WorkerProcess(process, connection, versions, stderr_lines)


_Connect: TypeAlias = Callable[["collections.deque[str]", DeferSigint], Connection]


def _begin_with_pair(backend: str, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], _Connect]:
    """A process born with its end of a connection: no name, which a crash would leave or TMPDIR make too long."""
    ours, theirs = socket.socketpair()
    with theirs:
        address = f"{protocol.INHERITED}{theirs.fileno()}"
        try:
            process = _started(
                [address, backend],
                environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C reaches the caller alone, which tells the worker
            )
        except BaseException:
            ours.close()
            raise
    return process, lambda stderr_lines, sigint: Connection(ours.detach())


def _begin_with_name(backend: str, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], _Connect]:
    """A process that finds its caller by the name of a pipe: Windows has no other way."""
    key = secrets.token_bytes(24)
    listener = Listener(authkey=key)
    group: dict[str, Any] = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
        if os.name == "nt"
        else {"start_new_session": True}
    )
    process = _started([str(listener.address), backend], {**environment, protocol.KEY: key.hex()}, **group)

    def connect(stderr_lines: collections.deque[str], sigint: DeferSigint) -> Connection:
        try:
            return _accept(listener, process, key, stderr_lines, sigint)
        finally:
            listener.close()

    return process, connect


_begin = _begin_with_pair if os.name == "posix" else _begin_with_name


def _started(arguments: list[str], environment: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bridges.julia.worker", *arguments],
        env={**environment, "PYTHONPATH": _import_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **options,
    )


def _accept(
    listener: Listener,
    process: subprocess.Popen[bytes],
    key: bytes,
    stderr_lines: collections.deque[str],
    sigint: DeferSigint,
) -> Connection:
    """The worker's connection; `Listener.accept` has no time limit of its own, so a thread waits for it."""
    accepted: list[Connection] = []

    def wait() -> None:
        try:
            accepted.append(listener.accept())
        except Exception as error:
            log.debug("no connection: %s", error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    started = time.monotonic()
    while thread.is_alive() and process.poll() is None and time.monotonic() - started < _START_SECONDS:
        thread.join(0.05)
        sigint.check()
    if not accepted:
        thread.join(0.2)
    if not accepted:
        try:
            Client(listener.address, authkey=key).close()  # ends the thread's `accept`
        except Exception as error:
            log.debug("the listener is gone: %s", error)
        raise _did_not_start(process, stderr_lines)
    return accepted[0]


def _first_message(
    connection: Connection,
    process: subprocess.Popen[bytes],
    stderr_lines: collections.deque[str],
    sigint: DeferSigint,
) -> dict[str, Any]:
    deadline = time.monotonic() + _START_SECONDS
    try:
        while not connection.poll(0.2):
            sigint.check()
            if process.poll() is not None or time.monotonic() > deadline:
                raise _did_not_start(process, stderr_lines)
        raw = connection.recv_bytes()
        if raw[:1] == protocol.FAILED:
            failure = protocol.receive_message(connection)
            raise WorkerError(f"the worker could not start: {failure['kind']}: {failure['text']}")
    except (EOFError, OSError):
        raise _did_not_start(process, stderr_lines) from None
    message: dict[str, Any] = json.loads(raw)
    return message


def _did_not_start(process: subprocess.Popen[bytes], stderr_lines: collections.deque[str]) -> WorkerError:
    time.sleep(0.1)  # for the last lines that it printed to arrive
    status = process.poll()
    how = f"it ended with status {status}" if status is not None else "it did not answer"
    return WorkerError(f"the worker could not start: {how}{_last_lines(stderr_lines)}")


def _last_lines(stderr_lines: collections.deque[str]) -> str:
    lines = "; ".join(stderr_lines)
    return f"; the last lines that it printed: {lines}" if lines else ""


def _write_log(stream: IO[bytes], stderr_lines: collections.deque[str]) -> None:
    """What the worker prints goes to the log, line by line."""
    with stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            if text:
                stderr_lines.append(text)
                log.info("%s", text)


def _import_path() -> str:
    """The worker imports from where this process does: `bridges` itself, and in tests what takes Julia's place."""
    here = str(Path(__file__).resolve().parents[2])
    others = [path for path in sys.path if path and os.path.isdir(path)]
    return os.pathsep.join(dict.fromkeys([here, *others]))


def _readable(connection: Connection) -> Callable[[float | None], bool]:
    """`connection.poll`, which makes a selector at each call, with one for all: 1 µs a right-hand side instead of 6."""
    if not hasattr(select, "poll"):
        return connection.poll
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return lambda seconds: bool(poll.poll(None if seconds is None else 1000 * seconds))
