"""Files that are there as a whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_AT_ONCE = 16  # files that are written to the disk


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, or replace it, in one step that outlasts a power cut.

    Raises:
        OSError: the folder cannot be written, or is full. What was there before is unchanged.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        # Not tempfile, whose files nobody else may read: the mode is the one that the user's umask says.
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def remove_leftovers(path: Path, older_than: float | None = None) -> None:
    """Remove what `write_atomically(path, …)` left if its process was killed.

    Args:
        older_than: seconds, so that what somebody else writes now stays; if None, nobody else may be writing it.
    """
    for leftover in path.parent.glob(f".{path.name}-*"):
        with contextlib.suppress(FileNotFoundError):
            if older_than is None or time.time() - leftover.stat().st_mtime > older_than:
                leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlast a power cut, where the system can."""
    with contextlib.suppress(OSError):  # not every file system, and not Windows
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Let a folder, with all that is in it, outlast a power cut.

    Raises:
        OSError: the disk is full or broken, as some file systems say only now.
    """
    files: list[str] = []
    folders: list[Path] = []
    for place, _, names in os.walk(folder, topdown=False):
        files += [os.path.join(place, name) for name in names]
        folders.append(Path(place))
    # Those that wait at once are written by a file system together.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(_sync_file, files):
            pass
        for _ in pool.map(sync_folder, folders):
            pass


def _sync_file(file: str) -> None:
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())
