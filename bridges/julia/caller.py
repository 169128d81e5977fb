"""The caller's side: a worker is started at the first solve, kept warm, and ends with its caller."""

from __future__ import annotations

import atexit
import collections
import json
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import IO, Any

from bridges.engine import Array, EngineError
from bridges.errors import NmOdeError
from bridges.julia import protocol
from bridges.julia.protocol import Vectors
from bridges.julia.signals import DeferSigint

log = logging.getLogger("bridges.julia")

_START_SECONDS = 600.0  # Julia may have to compile its packages
_PATIENCE = 3.0  # seconds in which a worker that was told to give up must do so


class WorkerError(NmOdeError, RuntimeError):
    """The worker cannot do it, or is gone."""


@dataclass(frozen=True)
class Callbacks:
    """What the worker may ask while it solves; whatever they raise comes out of `Worker.solve` as itself.

    Attributes:
        rhs: (t, state, rate) writes the derivative into rate.
        sample: (index, state); the state belongs to the worker.
        jvp: (t, state, direction, product), or None.
        sharpness: (t, state) → spectral radius, or None.
    """

    rhs: Callable[[float, Array, Array], None]
    sample: Callable[[int, Array], None]
    jvp: Callable[[float, Array, Array, Array], None] | None = None
    sharpness: Callable[[float, Array], float] | None = None


@dataclass
class _Life:
    """A worker process and the line to it."""

    process: subprocess.Popen[bytes]
    connection: Connection
    versions: dict[str, str]
    owner: int  # the process that started it
    last_words: collections.deque[str]
    vectors: Vectors | None = None
    idle: bool = True


class Worker:
    """One worker, for one process, one job at a time; other threads wait.

    Args:
        backend: "module:Class" of what solves in the worker.
        environment: for the worker, instead of this process's own.
        require_ready: called before a start; raises EngineError with the remedy if there is nothing to start.
    """

    def __init__(
        self,
        backend: str,
        environment: Callable[[], dict[str, str]] | None = None,
        require_ready: Callable[[], None] | None = None,
    ) -> None:
        self._backend, self._environment, self._require_ready = backend, environment, require_ready
        self._life: _Life | None = None
        self._forget_other_processes()

    def _forget_other_processes(self) -> None:
        """In a fork the lock may be held by a thread that is not there, and the worker is the parent's."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._busy_thread: int | None = None
        self._life = None

    @property
    def pid(self) -> int | None:
        """Of the worker process, if one runs."""
        return self._life.process.pid if self._life is not None else None

    def versions(self) -> dict[str, str]:
        """Library → version; starts the worker if need be."""
        with self._held():
            return self._alive().versions

    def solve(
        self, job: dict[str, Any], y0: Array, atol: Array | None, callbacks: Callbacks
    ) -> dict[str, Any]:
        """Solve; see `worker.Backend.solve` for `job` and what comes back.

        Raises:
            WorkerError: the worker is gone, or its solver raised; the next solve starts or goes on as if nothing was.
            EngineError: there is no worker to start, or no room for the state.
            BaseException: what a callback raised, as the same object, Ctrl-C included; the worker stays.
        """
        with self._held():
            life = self._alive()
            rows = self._vectors(life, y0.size).rows
            rows[protocol.STATE] = y0
            if atol is not None:
                rows[protocol.RATE] = atol
            return self._converse(life, {**job, "do": "solve"}, {}, callbacks, rows)

    def noisy(
        self, job: dict[str, Any], y0: Array, arrays: dict[str, Array], callbacks: Callbacks
    ) -> dict[str, Any]:
        """Solve stochastic paths from y0: `callbacks.rhs` is the drift, `callbacks.sample` gets each path's end."""
        with self._held():
            life = self._alive()
            rows = self._vectors(life, y0.size).rows
            rows[protocol.STATE] = y0
            return self._converse(
                life, {**job, "do": "noisy", "arrays": protocol.describe(arrays)}, arrays, callbacks, rows
            )

    def laws(self, job: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
        """Solve with nothing to ask back; arrays go over once, and come back under "arrays"."""
        with self._held():
            life = self._alive()
            return self._converse(
                life, {**job, "do": "laws", "arrays": protocol.describe(arrays)}, arrays, None, None
            )

    def close(self) -> None:
        """End the worker, if it is this process's own."""
        with DeferSigint():
            life, self._life = self._life, None
            if life is None or life.owner != os.getpid():
                return  # a fork's copy: the worker is its parent's
            life.connection.close()  # which ends its loop
            if life.vectors is not None:
                life.vectors.close()
            try:
                life.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                life.process.kill()
                life.process.wait()

    def _held(self) -> _Held:
        if self._process != os.getpid():
            self._forget_other_processes()
        return _Held(self)

    def _alive(self) -> _Life:
        if self._life is not None and self._life.process.poll() is not None:
            self.close()
        if self._life is None:
            if self._require_ready is not None:
                self._require_ready()
            environment = self._environment() if self._environment is not None else None
            with DeferSigint() as moment:
                self._life = _start(self._backend, environment, moment)
                atexit.register(self.close)
        return self._life

    def _vectors(self, life: _Life, n: int) -> Vectors:
        if life.vectors is not None and life.vectors.n == n:
            return life.vectors
        with DeferSigint():
            if life.vectors is not None:
                life.vectors.close()
            life.vectors = made = Vectors.create(n)
            try:
                protocol.send_message(life.connection, {"vectors": str(made.path), "n": n})
                operation, _ = protocol.receive_frame(life.connection)
                failure = protocol.receive_message(life.connection) if operation == protocol.FAILED else None
            except (EOFError, OSError):
                raise self._gone(life) from None
            if failure is not None:
                made.close()
                life.vectors = None
                raise WorkerError(f"{failure['kind']}: {failure['text']}")
            made.forget_name()
        return made

    def _converse(
        self,
        life: _Life,
        job: dict[str, Any],
        arrays: dict[str, Array],
        callbacks: Callbacks | None,
        rows: Array | None,
    ) -> dict[str, Any]:
        connection = life.connection
        raised: BaseException | None = None
        deadline: float | None = None
        life.idle = False
        try:
            protocol.send_message(connection, job)
            protocol.send_arrays(connection, arrays)
        except (EOFError, OSError):
            raise self._gone(life) from None
        while True:
            try:
                if deadline is not None and not connection.poll(max(0.0, deadline - time.monotonic())):
                    self._kill()  # it computes without asking: there is no other way to stop it
                    assert raised is not None
                    raise raised
                operation, number = protocol.receive_frame(connection)
            except (EOFError, OSError):
                if raised is not None:
                    self._kill()
                    raise raised from None
                raise self._gone(life) from None
            except KeyboardInterrupt as interrupt:
                if raised is not None:
                    self._kill()  # once more: now
                    raise
                raised, deadline = interrupt, time.monotonic() + _PATIENCE
                continue
            if operation in (protocol.DONE, protocol.FAILED):
                result = self._ending(life, operation)
                life.idle = True
                if raised is not None:
                    raise raised
                if operation == protocol.FAILED:
                    raise WorkerError(f"{result['kind']}: {result['text']}")
                return result
            answer, reply = 0.0, protocol.GIVE_UP
            if raised is None:
                assert callbacks is not None
                assert rows is not None
                try:
                    answer, reply = _answer(operation, number, callbacks, rows), protocol.GO_ON
                except BaseException as error:
                    raised, deadline = error, time.monotonic() + _PATIENCE
            try:
                protocol.send_frame(connection, reply, answer)
            except OSError:
                if raised is not None:
                    self._kill()
                    raise raised from None
                raise self._gone(life) from None

    def _ending(self, life: _Life, operation: bytes) -> dict[str, Any]:
        try:
            message = protocol.receive_message(life.connection)
            if operation == protocol.DONE:
                message["arrays"] = protocol.receive_arrays(life.connection, message["arrays"])
        except (EOFError, OSError):
            raise self._gone(life) from None
        return message

    def _gone(self, life: _Life) -> WorkerError:
        """The worker died: say how, and make room for the next."""
        with DeferSigint():
            self._life = None
            try:
                status: int | str = life.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                life.process.kill()
                status = f"killed after {_PATIENCE:g} s without a word ({life.process.wait()})"
            life.connection.close()
            if life.vectors is not None:
                life.vectors.close()
        words = "; ".join(life.last_words)
        return WorkerError(
            f"the worker ended with status {status}"
            + (f"; its last words: {words}" if words else "")
            + "; the next solve starts a new one"
        )

    def _kill(self) -> None:
        with DeferSigint():
            life = self._life
            if life is not None:
                life.process.kill()
                self._gone(life)


class _Held:
    """A worker's lock; a solve inside a callback of another would wait for itself."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        worker = self._worker
        if worker._busy_thread == threading.get_ident():
            raise EngineError(
                "a solve was asked for inside the right-hand side of another on the same worker: it would wait for "
                "itself"
            )
        with DeferSigint() as moment:
            while not worker._lock.acquire(timeout=0.1):
                moment.check()
            worker._busy_thread = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        worker = self._worker
        with DeferSigint():
            # Whatever came in between, Ctrl-C in the middle of a frame too: a line that is not at the end of a job
            # would answer the next job's questions.
            if worker._life is not None and not worker._life.idle:
                worker._kill()
            worker._busy_thread = None
            worker._lock.release()


def _answer(operation: bytes, number: float, callbacks: Callbacks, rows: Array) -> float:
    if operation == protocol.RHS:
        callbacks.rhs(number, rows[protocol.STATE], rows[protocol.RATE])
        return 0.0
    if operation == protocol.SAMPLE:
        callbacks.sample(int(number), rows[protocol.STATE])
        return 0.0
    if operation == protocol.JVP and callbacks.jvp is not None:
        callbacks.jvp(number, rows[protocol.STATE], rows[protocol.DIRECTION], rows[protocol.RATE])
        return 0.0
    if operation == protocol.SHARPNESS and callbacks.sharpness is not None:
        return callbacks.sharpness(number, rows[protocol.STATE])
    raise WorkerError(f"the worker asked for {operation!r}, which this solve does not answer")


def _start(backend: str, environment: dict[str, str] | None, moment: DeferSigint) -> _Life:
    key = secrets.token_bytes(24)
    listener = Listener(authkey=key)
    address = listener.address
    told = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    apart: dict[str, Any] = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
        if os.name == "nt"
        else {"start_new_session": True}  # Ctrl-C reaches the caller, which tells the worker
    )
    last_words: collections.deque[str] = collections.deque(maxlen=3)
    process = subprocess.Popen(
        [sys.executable, "-m", "bridges.julia.worker", told, backend],
        env={
            **(os.environ if environment is None else environment),
            protocol.KEY: key.hex(),
            "PYTHONPATH": _import_path(),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **apart,
    )
    assert process.stderr is not None
    threading.Thread(target=_write_log, args=(process.stderr, last_words), daemon=True).start()
    try:
        connection = _accept(listener, process, key, last_words, moment)
        hello = _first_message(connection, process, last_words, moment)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        listener.close()
    return _Life(process, connection, hello["versions"], os.getpid(), last_words)


def _accept(
    listener: Listener,
    process: subprocess.Popen[bytes],
    key: bytes,
    last_words: collections.deque[str],
    moment: DeferSigint,
) -> Connection:
    """The worker's connection; `accept` has no time limit of its own, so a thread waits for it."""
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
        moment.check()
    if not accepted:
        thread.join(0.2)
    if not accepted:
        try:
            Client(listener.address, authkey=key).close()  # lets the thread go
        except Exception as error:
            log.debug("the listener is gone: %s", error)
        raise _did_not_start(process, last_words)
    return accepted[0]


def _first_message(
    connection: Connection,
    process: subprocess.Popen[bytes],
    last_words: collections.deque[str],
    moment: DeferSigint,
) -> dict[str, Any]:
    deadline = time.monotonic() + _START_SECONDS
    try:
        while not connection.poll(0.2):
            moment.check()
            if process.poll() is not None or time.monotonic() > deadline:
                raise _did_not_start(process, last_words)
        raw = connection.recv_bytes()
        if raw[:1] == protocol.FAILED:
            failure = protocol.receive_message(connection)
            raise WorkerError(f"the worker could not start: {failure['kind']}: {failure['text']}")
    except (EOFError, OSError):
        raise _did_not_start(process, last_words) from None
    hello: dict[str, Any] = json.loads(raw)
    return hello


def _did_not_start(process: subprocess.Popen[bytes], last_words: collections.deque[str]) -> WorkerError:
    time.sleep(0.1)  # for its last words
    status = process.poll()
    how = f"it ended with status {status}" if status is not None else "it did not answer"
    words = "; ".join(last_words)
    return WorkerError(f"the worker could not start: {how}" + (f"; its last words: {words}" if words else ""))


def _write_log(stream: IO[bytes], last_words: collections.deque[str]) -> None:
    """What the worker prints goes to the log, line by line, and never into the protocol."""
    with stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            if text:
                last_words.append(text)
                log.info("%s", text)


def _import_path() -> str:
    """The worker finds what this process finds: `bridges` itself, and in tests what stands in for Julia."""
    here = str(Path(__file__).resolve().parents[2])
    others = [path for path in sys.path if path and os.path.isdir(path)]
    return os.pathsep.join(dict.fromkeys([here, *others]))
