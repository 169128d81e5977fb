"""Folders behind a URL, through fsspec: object stores such as S3, and whatever else it knows."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nm_ode.results.folders import Folder, LocalFolder
from nm_ode.results.identity import StoreError

_OBJECTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss"}
"""File systems without folders, by protocol."""
_AT_ONCE = 256
"""Files that are uploaded by one call; how many of them at a time is fsspec's matter."""


def folder_at(place: str | Path) -> Folder:
    """The folder of a path or a URL.

    Raises:
        StoreError: nothing is known of such URLs, or a package for them is missing.
    """
    if isinstance(place, Path) or "://" not in place:
        return LocalFolder(Path(place))
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    url = place.rstrip("/")
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise StoreError(
            f"{place} needs a package that is not installed ({error}); for s3:// it is `pip install 'nm-ode[s3]'`"
        ) from None
    except (ValueError, OSError) as error:
        raise StoreError(f"{place} is no place for results: {error}") from None
    if isinstance(filesystem, LocalFileSystem):
        return LocalFolder(Path(path))
    return RemoteFolder(filesystem, path, url)


class RemoteFolder:
    """A folder of an fsspec file system: see `nm_ode.results.folders.Folder`.

    A connection that is lost is an OSError, as everything else that goes wrong.
    """

    def __init__(self, filesystem: Any, path: str, url: str) -> None:
        self.name = url
        self._filesystem, self._path = filesystem, path.rstrip("/")

    def place(self, key: str) -> str:
        return f"{self.name}/{key}"

    def below(self, key: str) -> RemoteFolder:
        return RemoteFolder(self._filesystem, self._at(key), self.place(key))

    def read(self, key: str) -> bytes:
        with self._translated(key):
            return bytes(self._filesystem.cat_file(self._at(key)))

    def require_file(self, key: str) -> None:
        with self._translated(key):
            self._filesystem.invalidate_cache(self._at(key))
            if self._filesystem.info(self._at(key))["type"] != "file":
                raise FileNotFoundError(errno.ENOENT, "it is no file", self.place(key))

    def fault(self, keys: Iterable[str]) -> tuple[str, OSError] | None:
        with self._translated(""):
            self._filesystem.invalidate_cache(self._path)
            try:
                there = {str(path).lstrip("/") for path in self._filesystem.find(self._path)}
            except FileNotFoundError:
                there = set()
        for key in keys:
            if self._at(key).lstrip("/") not in there:
                return key, FileNotFoundError(errno.ENOENT, "it is missing", self.place(key))
        return None

    def write(self, key: str, content: bytes) -> None:
        with self._translated(key):
            try:
                self._filesystem.pipe_file(self._at(key), content)
            except FileNotFoundError:
                if _OBJECTS.intersection(np.atleast_1d(self._filesystem.protocol)):
                    raise  # there is no such bucket, and it is not ours to make
                self._filesystem.makedirs(self._filesystem._parent(self._at(key)), exist_ok=True)
                self._filesystem.pipe_file(self._at(key), content)

    def create(self, key: str, content: bytes) -> bool:
        """A file, unless there is one: of several that try at once, one succeeds.

        Returns:
            Was it this one?
        """
        with self._translated(key):
            try:
                self._filesystem.pipe_file(self._at(key), content, mode="create")
            except FileExistsError:
                return False
            except Exception as error:
                if _code(error) in _THERE_ALREADY:
                    return False
                raise
        return True

    def names(self, key: str = "") -> list[str]:
        path = self._at(key)
        with self._translated(key):
            self._filesystem.invalidate_cache(path)
            try:
                found = self._filesystem.ls(path, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = {str(name).rstrip("/").rpartition("/")[2] for name in found if str(name).rstrip("/") != path}
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, key: str) -> None:
        with self._translated(key), contextlib.suppress(FileNotFoundError):
            self._filesystem.invalidate_cache(self._at(key))
            self._filesystem.rm(self._at(key), recursive=True)

    def take(self, source: Path, key: str, last: str) -> None:
        keys = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
        first = [name for name in keys if name != last]
        with self._translated(key):
            self._remove_others(key, first)
            for start in range(0, len(first), _AT_ONCE):
                batch = first[start : start + _AT_ONCE]
                self._filesystem.put(
                    [str(source / name) for name in batch], [self._at(f"{key}/{name}") for name in batch]
                )
            self._filesystem.pipe_file(self._at(f"{key}/{last}"), (source / last).read_bytes())
        shutil.rmtree(source, ignore_errors=True)

    def _remove_others(self, key: str, keys: list[str]) -> None:
        """What an earlier upload left, that was cut off: files of other names, and the file that comes last."""
        path = self._at(key)
        self._filesystem.invalidate_cache(path)
        try:
            there = self._filesystem.find(path)
        except FileNotFoundError:
            return
        wanted = {self._at(f"{key}/{name}").lstrip("/") for name in keys}
        others = [name for name in there if name.lstrip("/") not in wanted]
        if others:
            self._filesystem.rm(others)

    def _at(self, key: str) -> str:
        return f"{self._path}/{key}" if key else self._path

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Errors of a file system's own kinds are OSErrors here."""
        try:
            yield
        except OSError as error:
            if error.filename is None and error.strerror is None:
                kind = type(error) if type(error) in _PLAIN else ConnectionError
                code = errno.ENOENT if kind is FileNotFoundError else errno.ECONNABORTED
                raise kind(code, _first_line(error), self.place(key)) from error
            raise
        except (ImportError, MemoryError):
            raise
        except Exception as error:
            raise ConnectionError(errno.ECONNABORTED, _first_line(error), self.place(key)) from error


_PLAIN = (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)


_THERE_ALREADY = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
"""S3's answers to an object that is only to be created."""


def _code(error: BaseException | None) -> str:
    """What S3 answered; empty if it is no such error."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__
