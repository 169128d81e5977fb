"""Ctrl-C at a moment when nothing is half done."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class DeferSigint:
    """Within this block Ctrl-C waits: until `check` is called, or for the end.

    Python raises KeyboardInterrupt between any two instructions: between a process being started and its handle being
    kept, a lock being taken and its release being sure. Outside the main thread no signal comes, and this does nothing.
    """

    def __enter__(self) -> DeferSigint:
        self._pending = False
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if callable(self._before):
                signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if callable(self._before):
            signal.signal(signal.SIGINT, self._before)
            if self._pending and kind is None:
                self._before(signal.SIGINT, None)

    def check(self) -> None:
        """A moment at which it may come."""
        if self._pending:
            self._pending = False
            self._before(signal.SIGINT, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
