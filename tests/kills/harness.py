"""Kill −9 at a file operation, in a fork of a process that has imported everything already.

An operation is what changes a folder: a file opened for writing, a rename, a link, a removal, a new folder. A kill
comes before it; or, where it opens a file, after a part of the file has been written.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Action = Callable[[], object]
_FAILED = 3
_CHANGES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink"}
_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def operations(action: Action, folder: Path) -> list[str]:
    """What an action does to a folder, one after the other: "os.rename …/zarr.json"."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        found: list[str] = []
        _watch(folder, lambda what, path: found.append(f"{what} {path}"))
        code = _outcome(action)
        with os.fdopen(writing, "w") as pipe:
            pipe.write("\n".join(found))
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise RuntimeError("the action fails undisturbed")
    return lines


def kill_at(action: Action, folder: Path, n: int, *, torn: bool = False) -> None:
    """Start an action, and kill it before its n-th operation (from 0); torn: with a part of the file written.

    Raises:
        RuntimeError: it was not killed there.
    """
    seen = 0

    def deadly(what: str, path: str) -> None:
        nonlocal seen
        if seen == n:
            try:
                if torn:
                    Path(path).write_bytes(b'{"zarr')
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    code = wait(start(action, lambda: _watch(folder, deadly)))
    if code != -signal.SIGKILL:
        raise RuntimeError(f"operation {n} was not reached: exit code {code}")


def start(action: Action, before: Action = lambda: None) -> int:
    """The number of a child that does it; its exit code is 0 if it went well."""
    child = os.fork()
    if child == 0:
        before()
        os._exit(_outcome(action))
    return child


def wait(child: int) -> int:
    """Its exit code; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _outcome(action: Action) -> int:
    try:
        action()
    except BaseException:
        traceback.print_exc()
        return _FAILED
    return 0


def _watch(folder: Path, seen: Callable[[str, str], None]) -> None:
    inside, lock = str(folder), threading.RLock()
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if not (event in _CHANGES or (event == "open" and _writes(arguments))):
            return
        path = str(arguments[0])
        # shutil.rmtree removes by names in an open folder.
        if path.startswith(inside) or (event in ("os.remove", "os.rmdir") and not os.path.isabs(path)):
            with lock:  # Zarr writes from several threads
                if not busy:
                    busy = True
                    seen(event, path)
                    busy = False

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    return not isinstance(path, int) and bool(flags & _FOR_WRITING)
