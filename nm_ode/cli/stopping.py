"""How the command stops before its end: Ctrl-C, SIGTERM, a pipe that closes, an error that nobody expected.

Only Python's own library is imported here, and little of it, so that it is there before all else.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

DONE, FAILED, MISTAKE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
"""Exit codes: 128 and the signal's number where a signal ended the command, as shells have it."""

TRACEBACK = "NM_ODE_TRACEBACK"
"""Environment variable with which an error that nobody expected is shown with its traceback."""

_KEPT = {
    "run": "what was complete is kept, run the same command to go on",
    "report": "the store is as it was, and so is an older report.html unless the new one is complete",
    "bridge": "nothing else was changed; the same command can be given again",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends what Ctrl-C ends, the same way."""


def kept(command: str | None) -> str:
    """What is left of a command that is stopped."""
    return _KEPT.get(command or "", "nothing was changed")


def stop_sentence(error: KeyboardInterrupt, command: str | None) -> tuple[str, int]:
    """What is said of a command that a signal stopped, and its exit code."""
    terminated = isinstance(error, Terminated)
    how = "stopped by SIGTERM" if terminated else "interrupted"
    return f"{how}; {kept(command)}", TERMINATED if terminated else INTERRUPTED


def _ignore(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)


def heed() -> None:
    """Raise a KeyboardInterrupt again that did not arrive: a library has swallowed it, in an import say."""
    if _of_the_command is not None and _of_the_command.last is not None:
        raise _of_the_command.last


@contextmanager
def stopped_tidily() -> Iterator[None]:
    """Whatever ends the block, the process ends without a traceback, and with an exit code of its own."""
    global _of_the_command
    signals = _of_the_command = _Signals()
    try:
        signals.install()
        code = 1
        try:
            _forgive_characters()
            yield
            heed()
            code = DONE
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else DONE if ended.code is None else FAILED
            if signals.last is not None and code not in (INTERRUPTED, TERMINATED):
                code = _stopped(signals, signals.last)
        except KeyboardInterrupt as error:
            code = _stopped(signals, error)
        except BaseException as error:
            # A library may have made something else of it, an ImportError say.
            code = _stopped(signals, signals.last) if signals.last is not None else _failed(error)
        signals.ending = True
        code = code if _flushed() else code or FAILED
    except KeyboardInterrupt as again:  # while the first was being told
        with suppress(KeyboardInterrupt):
            _stopped(signals, again)
        os._exit(INTERRUPTED)
    raise SystemExit(code)


class _Signals:
    """The handlers of SIGINT and SIGTERM while the command runs; what is ignored stays ignored.

    Attributes:
        last: what was raised for the last of them; None while none has come.
        ending: from here on they are not heeded, or only the second: there is nothing left to stop.
    """

    def __init__(self) -> None:
        self.last: KeyboardInterrupt | None = None
        self.ending = False
        self._terminated = False

    def install(self) -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupted)
            sys.unraisablehook = self._unraisable
            atexit.register(_ignore, signal.SIGINT)  # the last of all: later Python has no handlers any more
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._asked_to_end)
            atexit.register(_ignore, signal.SIGTERM)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self.ending:
            if self.last is not None:
                os._exit(INTERRUPTED)
            self.last = KeyboardInterrupt()
            return
        self.last = Terminated() if self._terminated else KeyboardInterrupt()
        raise self.last

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True
        if callable(signal.getsignal(signal.SIGINT)):
            signal.raise_signal(signal.SIGINT)  # whose handler is held back where an exception must not come
        else:  # in the background, where the shell has SIGINT ignored
            self._interrupted(number, frame)

    def _unraisable(self, unraisable: Any) -> None:
        """An exception where none can be raised, in a destructor say: Ctrl-C must not be lost there."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            # Once more, but not here, where it would be lost again.
            with suppress(RuntimeError):
                _thread.start_new_thread(self._raise_soon, ())
        else:
            sys.__unraisablehook__(unraisable)

    @staticmethod
    def _raise_soon() -> None:
        time.sleep(0.01)
        main = threading.main_thread().ident
        if hasattr(signal, "pthread_kill") and main is not None:
            signal.pthread_kill(main, signal.SIGINT)  # a sleep or a read that is under way ends too
        else:
            _thread.interrupt_main()


_of_the_command: _Signals | None = None


def _stopped(signals: _Signals, error: KeyboardInterrupt) -> int:
    signals.ending = True
    sentence, code = stop_sentence(error, next((word for word in sys.argv[1:] if word[:1] != "-"), None))
    _say(sentence)
    return code


def _failed(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        return FAILED
    if os.environ.get(TRACEBACK):
        import traceback

        traceback.print_exception(error)
        return FAILED
    errors = sys.modules.get("bridges.errors")
    if errors is not None and isinstance(error, errors.NmOdeError):
        _say(str(error))
        return MISTAKE
    if isinstance(error, MemoryError):
        _say("there is not enough memory")
    elif isinstance(error, OSError):
        _say(f"{error.filename}: {error.strerror or error}" if error.filename else str(error))
    else:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        _say(f"{what}; nobody expected this: please report it, with what {TRACEBACK}=1 shows")
    return FAILED


def _say(sentence: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # there is nobody to tell
        print(f"error: {sentence}", file=sys.stderr)


def _forgive_characters() -> None:
    """What a terminal has no letter for is written as its code: the name of a file need not be Unicode."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _flushed() -> bool:
    """Was all written that was printed? If not, Python must not try again when it ends, which it would tell."""
    whole = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            whole = False
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return whole
