"""Folders that hold a store, on a disk or elsewhere: what is read from them, and how something appears in them whole.

`LocalFolder` is one of them; `nm_ode.results.remote` has those behind a URL.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from nm_ode.results.files import remove_leftovers, sync_folder, sync_tree, write_atomically

INCOMING = ".incoming-"
"""How a folder is called while it is copied in from another disk."""
_AT_ONCE = 16
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


class Folder(Protocol):
    """A folder; keys are paths in it with '/' between names. What goes wrong is an OSError."""

    name: str
    """As the user calls it."""

    def place(self, key: str) -> str:
        """A path or a URL, for a reader."""

    def below(self, key: str) -> Folder:
        """A folder in it."""

    def read(self, key: str) -> bytes: ...

    def require_file(self, key: str) -> None:
        """Raises OSError unless there is a file of that key."""

    def fault(self, keys: Iterable[str]) -> tuple[str, OSError] | None:
        """The first of these keys that has no file, and why; None if all have."""

    def write(self, key: str, content: bytes) -> None:
        """A file, or another in its place, in one step; with the folders above it."""

    def names(self, key: str = "") -> list[str]:
        """Of what is in a folder of it, sorted, without names that start with a dot; empty if there is none."""

    def remove(self, key: str) -> None:
        """A file, or a folder with all that is in it, if it is there."""

    def take(self, source: Path, key: str, last: str) -> None:
        """Move a local folder in. Whoever looks for its file `last` finds it when all others are there."""


def each(
    work: Callable[[_Item], _Found], items: Sequence[_Item], folders: Iterable[Folder]
) -> Iterator[_Found]:
    """What `work` gives of each item, in order: several at a time where a file of one of these folders is a request."""
    if len(items) < 2 or all(isinstance(folder, LocalFolder) for folder in folders):
        yield from map(work, items)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(work, items)


class LocalFolder:
    """A folder on a disk: see `Folder`."""

    def __init__(self, path: Path) -> None:
        # Absolute, for what is read later; named as it was given.
        self.name, self.path = str(path), path.absolute()
        self._given = path

    def place(self, key: str) -> str:
        return str(self._given / key)

    def below(self, key: str) -> LocalFolder:
        return LocalFolder(self._given / key)

    def read(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def require_file(self, key: str) -> None:
        if not stat.S_ISREG((self.path / key).stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is no file", self.place(key))

    def fault(self, keys: Iterable[str]) -> tuple[str, OSError] | None:
        for key in keys:
            try:
                self.require_file(key)
            except OSError as error:
                return key, error
        return None

    def write(self, key: str, content: bytes) -> None:
        file = self.path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)

    def names(self, key: str = "") -> list[str]:
        try:
            found = os.listdir(self.path / key)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if not name.startswith("."))

    def remove(self, key: str) -> None:
        path = self.path / key
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def take(self, source: Path, key: str, last: str) -> None:
        target = self.path / key
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_in(source, target)
        sync_folder(target.parent)

    def remove_leftovers(self, key: str) -> None:
        """What killed processes left of writing this file, or of taking in this folder."""
        path = self.path / key
        remove_leftovers(path)
        shutil.rmtree(_incoming(path), ignore_errors=True)


def _copy_in(source: Path, target: Path) -> None:
    """From another disk: under a name that nobody looks for, until it is whole."""
    incoming = _incoming(target)
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        shutil.copytree(source, incoming)
        sync_tree(incoming)
        incoming.rename(target)
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise
    shutil.rmtree(source, ignore_errors=True)


def _incoming(path: Path) -> Path:
    return path.with_name(f"{INCOMING}{path.name}")
