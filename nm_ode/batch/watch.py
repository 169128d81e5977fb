"""What ends a member before its end: its time, its memory, a batch that is given up.

The member runs in its thread; another looks at the clock and at the memory. First the member is asked, through its
progress callbacks, where it stops between two steps. One that does not answer, in a long right-hand side say, gets the
exception wherever its Python is, but in no import, of which a half would stay.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

import psutil

_LOOK = 0.2  # seconds
_ANSWER = 1.0  # seconds until an exception is thrown
_AGAIN = 3.0  # seconds until it is thrown again
_IMPORT = 0.02  # seconds until an import may be over


class Stopped(BaseException):
    """The member is to end. No Exception: code that goes on after any error must not go on after this one."""


class TimeUp(Stopped):
    """Its time is over."""


class TooLarge(Stopped):
    """Its process has more memory than it may have."""


class Cancelled(Stopped):
    """Nobody wants its results any more."""


_given_up: set[str] = set()
_broken_off = threading.Event()


def give_up(batch: str) -> None:
    """Members of this batch that run in this process end as soon as they can, and no other begins."""
    _given_up.add(batch)


def is_given_up(batch: str) -> bool:
    """Was the batch given up in this process?"""
    return batch in _given_up


def has_broken_off() -> bool:
    """Was anything in this process broken off in the middle? Then it may have left something half done."""
    return _broken_off.is_set()


class Watch:
    """Within this block the thread's work ends with `Stopped` where it must.

    Args:
        batch: that may be given up.
        max_seconds, memory: limits; None for none. Memory in bytes of the whole process.
        on_growth: told the largest memory, in bytes, whenever it has grown by a tenth.
    """

    def __init__(
        self,
        batch: str,
        max_seconds: float | None = None,
        memory: int | None = None,
        *,
        on_growth: Callable[[int], None] | None = None,
    ) -> None:
        self._batch, self._max_seconds, self._memory = batch, max_seconds, memory
        self._on_growth = on_growth
        self._asked: type[Stopped] | None = None
        self._thrown = False
        self._over, self._throwing = threading.Event(), threading.Lock()
        self._process, self._largest = psutil.Process(), 0

    def __enter__(self) -> Watch:
        self._thread, self._began = threading.get_ident(), time.monotonic()
        threading.Thread(target=self._look, name="watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._throwing:
            self._over.set()
        if self._thrown and kind is None:
            with contextlib.suppress(Stopped):  # one that has not arrived comes now, and too late
                time.sleep(0.01)

    def heed(self) -> None:
        """Raises what the work was asked to end with."""
        if self._asked is not None:
            raise self._asked

    def progress(self, what: str, total: int) -> Callable[[int], None]:
        """As of `nm_ode.studies.progress`: between two steps the work can end."""
        self.heed()
        return lambda done: self.heed()

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            self._asked = self._reason()
            if self._asked is not None:
                self._end(self._asked)
                return

    def _reason(self) -> type[Stopped] | None:
        if is_given_up(self._batch):
            return Cancelled
        if self._max_seconds is not None and time.monotonic() - self._began > self._max_seconds:
            return TimeUp
        held = int(self._process.memory_info().rss)
        if held > 1.1 * self._largest:
            self._largest = held
            if self._on_growth is not None:
                self._on_growth(held)
        return TooLarge if self._memory is not None and held > self._memory else None

    def _end(self, reason: type[Stopped]) -> None:
        pause = _ANSWER
        while not self._over.wait(pause):
            with self._throwing:
                if self._over.is_set():
                    return
                pause = _IMPORT
                if not _imports(self._thread):
                    self._thrown, pause = True, _AGAIN
                    _broken_off.set()
                    _throw(self._thread, reason)


def _imports(thread: int) -> bool:
    """Is the thread importing something?"""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _throw(thread: int, error: type[BaseException]) -> None:
    """Raise an exception in a thread, at its next bytecode. There is no taking it back: Python 3.11 would hang."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
