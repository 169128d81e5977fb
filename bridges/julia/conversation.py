"""One job of a worker: it asks for derivatives and hands out samples until it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridges.julia import protocol
from bridges.julia.process import WorkerError, WorkerProcess
from bridges.julia.signals import DeferSigint
from bridges.problem import Array


@dataclass(frozen=True)
class Callbacks:
    """What the worker may ask while it solves; whatever they raise comes out of the job as the same object.

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


class Conversation:
    """One job, from its request to its result.

    After an exception in a callback, or a Ctrl-C, the worker is told at its next question to give up. One that asks
    nothing for `give_up_seconds`, since it computes, is killed; and it is killed at once if Ctrl-C comes again.

    SIGINT is handled in callbacks and while waiting for a frame, never in the middle of reading one. Only the request
    and the result, which may be long, can be interrupted; then the worker is left out of sync.

    Args:
        worker: in sync.
        callbacks: None for a job that asks nothing.
        rows: the vectors shared with the worker, shape (3, n); None for a job that asks nothing.
        sigint: of the block that this runs in.
        give_up_seconds: how long the worker may take to give up.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        callbacks: Callbacks | None,
        rows: Array | None,
        sigint: DeferSigint,
        give_up_seconds: float,
    ) -> None:
        self._worker, self._callbacks, self._rows = worker, callbacks, rows
        self._sigint, self._give_up_seconds = sigint, give_up_seconds
        self._raised: BaseException | None = None
        self._deadline: float | None = None

    def run(self, job: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
        """Send the job and its arrays, answer until it is done, and return its result; arrays under "arrays".

        Raises:
            WorkerError: the worker is gone, or its solver raised.
            BaseException: what a callback raised, as the same object.
        """
        ending: dict[str, Any] | None = None
        failure: WorkerError | None = None
        self._worker.in_sync = False
        try:
            self._sigint.allow(self._send, job, arrays)
            ending = self._answer_until_done()
        except (EOFError, OSError):  # of the connection: those of a callback are kept
            failure = self._worker.end_after_failure()
        if self._raised is not None:
            raise self._raised
        if failure is not None:
            raise failure
        assert ending is not None
        if "kind" in ending:
            raise WorkerError(f"{ending['kind']}: {ending['text']}")
        return ending

    def _send(self, job: dict[str, Any], arrays: dict[str, Array]) -> None:
        protocol.send_message(self._worker.connection, job)
        protocol.send_arrays(self._worker.connection, arrays)

    def _answer_until_done(self) -> dict[str, Any] | None:
        """The last message; None if the worker had to be killed."""
        connection = self._worker.connection
        while True:
            if not self._wait():
                self._worker.kill()
                return None
            operation, number = protocol.receive_frame(connection)
            if operation in (protocol.DONE, protocol.FAILED):
                ending = self._sigint.allow(self._ending, operation)
                self._worker.in_sync = True
                return ending
            answer = 0.0
            if self._raised is None:
                try:
                    answer = self._sigint.allow(self._answer, operation, number)
                except BaseException as error:
                    self._give_up(error)
            reply = protocol.GO_ON if self._raised is None else protocol.GIVE_UP
            protocol.send_frame(connection, reply, answer)

    def _wait(self) -> bool:
        """For the next frame; False if the worker did not give up in time."""
        while True:
            remaining = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            try:
                return self._sigint.allow(self._worker.wait_for_frame, remaining)
            except (EOFError, OSError):
                raise
            except BaseException as interrupt:  # KeyboardInterrupt, or what the caller's own handler raises
                again = self._raised is not None
                self._give_up(interrupt)
                if again:
                    return False

    def _give_up(self, error: BaseException) -> None:
        self._raised, self._deadline = error, time.monotonic() + self._give_up_seconds

    def _ending(self, operation: bytes) -> dict[str, Any]:
        message = protocol.receive_message(self._worker.connection)
        if operation == protocol.DONE:
            message["arrays"] = protocol.receive_arrays(self._worker.connection, message["arrays"])
        return message

    def _answer(self, operation: bytes, number: float) -> float:
        callbacks, rows = self._callbacks, self._rows
        if callbacks is not None and rows is not None:
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
        raise WorkerError(f"the worker asked for {operation!r}, which this job does not answer")
