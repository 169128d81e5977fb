"""From what a member raised to why it has no results."""

from __future__ import annotations

import errno
import traceback
from datetime import UTC, datetime

from nm_ode.batch.tasks import MemberTask
from nm_ode.batch.watch import TimeUp, TooLarge
from nm_ode.errors import NmOdeError
from nm_ode.memory import in_words
from nm_ode.results.study import Failure
from nm_ode.results.study.record import FailureKind
from nm_ode.studies.versions import versions

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""What a disk says that has no room, or is none any more."""


def failure_of(error: BaseException, task: MemberTask) -> Failure:
    """The failure, without the member's case and log."""
    kind, sentence, unexpected = _judged(error, task)
    return failure(kind, sentence, "".join(traceback.format_exception(error)) if unexpected else "")


def failure(kind: FailureKind, sentence: str, trace: str = "") -> Failure:
    """A failure of now."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Failure(kind, sentence, when, traceback=trace, versions=versions())


def _judged(error: BaseException, task: MemberTask) -> tuple[FailureKind, str, bool]:
    if isinstance(error, TimeUp):
        limit = f"{task.max_seconds:g} s" if task.max_seconds is not None else "its time"
        return "time", f"it ran past its limit of {limit}; the same command goes on with it", False
    if isinstance(error, TooLarge):
        return "memory", _too_large(task), False
    if isinstance(error, MemoryError) or _is_torchs(error):
        return "memory", f"there is not enough memory ({_line(error) or 'MemoryError'})", False
    full = _of_the_disk(error)
    if full is not None:
        return "disk", str(error) if isinstance(error, NmOdeError) else _of_os(full), False
    if isinstance(error, NmOdeError):
        return "error", str(error), False
    return "error", f"{type(error).__name__}: {_line(error)}".rstrip(": "), True


def _too_large(task: MemberTask) -> str:
    may = in_words(task.memory) if task.memory is not None else "what there is"
    return f"its process grew beyond the {may} of memory that one may have: run it with fewer --workers"


def _is_torchs(error: BaseException) -> bool:
    """torch has an error of its own for the memory of a GPU, and none for that of the CPU."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def _of_the_disk(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def _of_os(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
