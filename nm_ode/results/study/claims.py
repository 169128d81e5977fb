"""Who works on a member: nobody else may, and a claim ends with the process that has it, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nm_ode.results.files import remove_leftovers, write_atomically
from nm_ode.results.identity import StoreError

_TRIES = 100
_LOCK, _HOLDER = ".claim", ".claimed.json"


class Busy(StoreError):  # noqa: N818
    """Another process works on this member.

    Attributes:
        who: "process 4711 on node17"; "" if it has not said yet.
        since: ISO 8601, UTC; "" likewise.
    """

    def __init__(self, member: str, who: str = "", since: str = "") -> None:
        by = f"by {who} since {since}" if who else "by another process"
        super().__init__(f"{member} is being computed {by}: wait for it")
        self.member, self.who, self.since = member, who, since

    def __reduce__(self) -> tuple[Any, ...]:  # across processes
        return Busy, (self.member, self.who, self.since)


def myself() -> dict[str, str]:
    """What a claim says of who has it."""
    return {"who": f"process {os.getpid()} on {socket.gethostname()}", "since": now()}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def locked(folder: Path, member: str) -> Iterator[None]:
    """A member's folder, there and for nobody else to write in. The kernel gives it back when the process ends.

    If nothing else is in it at the end, it is removed.

    Raises:
        Busy: another process has it.
        OSError: the folder cannot be written.
    """
    lock = FileLock(folder / _LOCK)
    for tries in range(_TRIES, -1, -1):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            break
        except Timeout:
            raise Busy(member, **_holder(folder)) from None
        except (FileNotFoundError, FileExistsError):  # whoever had it is just removing the folder
            if not tries or folder.is_file():
                raise
    try:
        with contextlib.suppress(OSError):  # it is for readers only
            write_atomically(folder / _HOLDER, json.dumps(myself()).encode())
        yield
    finally:
        _tidy(folder)
        lock.release()


def clear(folder: Path) -> None:
    """Remove all that is in a claimed member's folder, but for the claim."""
    for name in os.listdir(folder):
        if name not in (_LOCK, _HOLDER):
            path = folder / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """While the claim is held: whoever waits for the lock sees that its file is gone, and takes a new one."""
    with contextlib.suppress(OSError):
        (folder / _HOLDER).unlink(missing_ok=True)
        remove_leftovers(folder / _HOLDER)
        if os.listdir(folder) == [_LOCK]:
            (folder / _LOCK).unlink()
            folder.rmdir()


def _holder(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / _HOLDER).read_bytes())
        return {"who": str(found["who"]), "since": str(found["since"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
