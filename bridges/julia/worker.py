"""The worker process: it runs one caller's jobs on a backend. `python -m bridges.julia.worker`.

However its caller ends, so does the worker: a closed connection ends the loop, and a thread checks for the parent while
the backend computes.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from typing import Any, Protocol

from bridges.julia import protocol
from bridges.julia.protocol import Vectors
from bridges.julia.warming import SmallJob
from bridges.problem import Array

Ask = Callable[[bytes, float], float]
"""`ask(operation, number)` → the caller's answer; raises GivenUp if the caller ends the job."""


class GivenUp(Exception):  # noqa: N818 (a request of the caller, not a defect)
    """The caller ends this job."""


class Backend(Protocol):
    """What solves in the worker: Julia, or in tests something in its place."""

    def versions(self) -> dict[str, str]:
        """Library → version, for the record."""
        ...

    def solve(self, job: dict[str, Any], rows: Array, ask: Ask) -> dict[str, Any]:
        """Solve an initial value problem whose field the caller has.

        Args:
            job: `method`, `kind`, `times`, `rtol`, `atol` (None: row RATE has one for each entry at the start), `step`
                and `max_step` (None: free), `jvp` and `sharpness` (whether the caller is asked for these: the product
                by every implicit method), `max_steps`.
            rows: state, rate and direction, shape (3, n), shared with the caller; at the start row STATE is the state
                at times[0].
            ask: RHS, JVP, SHARPNESS; and SAMPLE for each of `times` in turn, the first included.

        Returns:
            `retcode` ("Success", or why not), `time` reached, `steps`, `rejected_steps`.
        """
        ...

    def laws(self, job: dict[str, Any], arrays: dict[str, Any], ask: Ask) -> dict[str, Any]:
        """Solve the driven laws of the charges; see `session.WorkerSession.laws`."""
        ...

    def noisy(self, job: dict[str, Any], rows: Array, arrays: dict[str, Any], ask: Ask) -> dict[str, Any]:
        """Stochastic paths; see `session.WorkerSession.noisy`."""
        ...


def main(address: str, backend: str) -> None:
    """Serve until the caller is gone."""
    parent = os.getppid()
    os.dup2(2, 1)  # what is printed belongs in the log
    connection = _connection(address)
    threading.Thread(target=_exit_without, args=(parent,), daemon=True).start()
    try:
        made = _load(backend)
        protocol.send_message(connection, {"versions": made.versions()})
        serve(connection, made)
    except (EOFError, ConnectionError, BrokenPipeError):
        pass
    except BaseException as error:
        _send_failure(connection, error)
    finally:
        # Not sys.exit: the backend may have threads and finalisers that do not end.
        sys.stderr.flush()
        os._exit(0)


def serve(connection: Connection, backend: Backend) -> None:
    """Run job after job until the connection is closed."""

    def ask(operation: bytes, number: float) -> float:
        protocol.send_frame(connection, operation, number)
        reply, answer = protocol.receive_frame(connection)
        if reply == protocol.GIVE_UP:
            raise GivenUp
        return answer

    vectors: Vectors | None = None
    while True:
        job = protocol.receive_message(connection)
        try:
            if "vectors" in job:
                if vectors is not None:
                    vectors.close()
                vectors = Vectors.receive(connection, job)
                protocol.send_frame(connection, protocol.GO_ON)
                continue
            arrays = protocol.receive_arrays(connection, job["arrays"]) if "arrays" in job else {}
            if job["do"] == "warm":
                small = SmallJob(job["job"])
                _run(backend, small.job, small.rows, small.arrays, small.ask)
                result = {}
            else:
                result = _run(backend, job, None if vectors is None else vectors.rows, arrays, ask)
        except (EOFError, ConnectionError, BrokenPipeError):
            raise
        except BaseException as error:
            _send_failure(connection, error)
            continue
        arrays = result.pop("arrays", {})
        protocol.send_frame(connection, protocol.DONE)
        protocol.send_message(connection, {**result, "arrays": protocol.describe(arrays)})
        protocol.send_arrays(connection, arrays)


def _run(
    backend: Backend, job: dict[str, Any], rows: Array | None, arrays: dict[str, Array], ask: Ask
) -> dict[str, Any]:
    if job["do"] == "laws":
        return backend.laws(job, arrays, ask)
    assert rows is not None
    if job["do"] == "noisy":
        return backend.noisy(job, rows, arrays, ask)
    return backend.solve(job, rows, ask)


def _send_failure(connection: Connection, error: BaseException) -> None:
    traceback.print_exception(error)  # the whole of it, in the log
    first = str(error).split("Stacktrace:")[0].strip()
    protocol.send_frame(connection, protocol.FAILED)
    protocol.send_message(connection, {"kind": type(error).__name__, "text": first})


def _load(backend: str) -> Backend:
    module, _, name = backend.partition(":")
    made: Backend = getattr(importlib.import_module(module), name)()
    return made


def _connection(address: str) -> Connection:
    if address.startswith(protocol.INHERITED):
        return Connection(int(address.removeprefix(protocol.INHERITED)))
    return Client(address, authkey=bytes.fromhex(os.environ.pop(protocol.KEY)))


def _exit_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
