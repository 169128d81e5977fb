"""Defer SIGINT in critical sections."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class DeferSigint:
    """Within this block SIGINT (Ctrl-C) is remembered and handled at its end, or at the next `check` or `allow`.

    Python's handler raises KeyboardInterrupt between any two instructions: between a process being started and its
    handle being stored, or in the middle of a `finally`. Blocks may be nested.

    A handler that was installed before is called, whatever it does. A process that ignores SIGINT, that leaves it to
    the operating system, or whose handler was installed by other than Python's `signal`, is left alone; so are threads
    other than the main one, to which no signal comes.
    """

    def __enter__(self) -> DeferSigint:
        self._deferring = True
        self._pending: FrameType | bool | None = False
        self._previous: Any = None
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):  # SIG_IGN, SIG_DFL and None are not
                self._previous = previous
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._deferring = True
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self.check()

    def check(self) -> None:
        """Handle a SIGINT that came since; with Python's own handler: raise KeyboardInterrupt."""
        if self._pending is not False:
            frame, self._pending = self._pending, False
            self._previous(signal.SIGINT, frame)

    def allow(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """call(*args); while it runs, SIGINT is handled as it comes."""
        try:
            self._deferring = False
            self.check()
            return call(*args)
        finally:
            self._deferring = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._deferring:
            self._pending = frame
            return
        self._deferring = True  # the exception that comes now must find its way to the caller undisturbed
        self._previous(number, frame)
        self._deferring = False
