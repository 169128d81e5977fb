"""A worker's own process for members: started, asked, and ended where a member does not end by itself."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

import psutil

from nm_ode.batch.machine import SHARE
from nm_ode.batch.process import receive, send
from nm_ode.batch.tasks import BatchError, MemberOutcome, MemberTask, Sure

_LOOK = 0.1  # seconds
_STOPPING = 8.0  # seconds that a member has to keep how far it is
_PATIENCE = 30.0  # seconds beyond its time until its process is ended
_STARTS = 3  # in vain, one after the other
_TOLD = 2000  # letters of what a process said that could not start


class Died(Exception):  # noqa: N818
    """The process ended in the middle of a member."""


class Ended(Exception):  # noqa: N818
    """The process was ended from here.

    Attributes:
        why: "time", "memory", or "unwanted".
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class MemberProcess:
    """A process that computes one member after the other. It is started when it is first wanted, and after its end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._errors: IO[bytes] | None = None
        self._ready, self._in_vain = False, 0

    def start(self) -> None:
        """Start it, if it does not run."""
        if self._process is not None and self._process.poll() is None:
            return
        self.end()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        path = [os.path.abspath(place) for place in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nm_ode.batch.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))},
        )
        self._answers, self._ready = queue.SimpleQueue(), False
        threading.Thread(target=self._listen, args=(self._process, self._answers), daemon=True).start()

    def ask(self, task: MemberTask, is_wanted: Callable[[], bool]) -> MemberOutcome:
        """The outcome of a task; one that is sure comes though the process ends in what follows it.

        Args:
            is_wanted: asked again and again; where it says no, the member is told to end, and is ended.

        Raises:
            Died, Ended: what became of it instead.
            BatchError: the process cannot be started.
        """
        self.start()
        self._await_ready(is_wanted)
        sure: list[MemberOutcome] = []
        try:
            return self._asked(task, is_wanted, sure)
        except (Died, Ended):
            if not sure:
                raise
            return sure[0]

    def _asked(
        self, task: MemberTask, is_wanted: Callable[[], bool], sure: list[MemberOutcome]
    ) -> MemberOutcome:
        """As `ask`, of a process that is ready.

        Args:
            sure: takes up an outcome as soon as it is.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was ended
            send(process.stdin, ("run", task))
        began, stopping = time.monotonic(), None
        while True:
            with contextlib.suppress(queue.Empty):
                answer = self._answers.get(timeout=_LOOK)
                if answer is None:
                    raise Died
                if not isinstance(answer, Sure):
                    outcome: MemberOutcome = answer
                    return outcome
                sure.append(answer.outcome)
            now = time.monotonic()
            if stopping is None and not is_wanted():
                stopping = now
                with contextlib.suppress(OSError, ValueError):
                    send(process.stdin, ("stop", task.batch))
            if stopping is not None and now - stopping > _STOPPING:
                self.end()
                raise Ended("unwanted")
            if task.all_seconds is not None and now - began > task.all_seconds + _PATIENCE:
                self.end()
                raise Ended("time")
            if task.memory is not None and _held(process.pid) > task.memory / SHARE:
                self.end()
                raise Ended("memory")

    def end(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._errors):
                with contextlib.suppress(OSError):  # what nobody read any more
                    if stream is not None:
                        stream.close()
            self._process = None

    def _await_ready(self, is_wanted: Callable[[], bool]) -> None:
        while not self._ready:
            try:
                answer = self._answers.get(timeout=_LOOK)
            except queue.Empty:
                if not is_wanted():
                    raise Ended("unwanted") from None
                continue
            if answer is not None:
                self._ready, self._in_vain = True, 0
                continue
            self._in_vain += 1
            if self._in_vain < _STARTS:  # it may have been killed
                raise Died
            raise BatchError(f"a process for members cannot be started: {self._said() or 'it was killed'}")

    def _said(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return " ".join(self._errors.read().decode("utf-8", "replace").split())[-_TOLD:]

    @staticmethod
    def _listen(process: subprocess.Popen[bytes], answers: queue.SimpleQueue[Any]) -> None:
        assert process.stdout is not None
        with process.stdout:
            try:
                while True:
                    answers.put(receive(process.stdout))
            except (EOFError, OSError, ValueError):
                process.wait()
                answers.put(None)


def _held(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


members = MemberProcess()
"""Of this worker."""
