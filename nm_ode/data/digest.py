"""The digest of a data set's samples; and what tells cheaply whether the files that they are read from have changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nm_ode.data.base import DataSet

_AT_ONCE = 2**24  # bytes of an array that is on disk
_SETTLED = 5.0  # seconds after which another change would have another time on any file system


def digest_of(data: DataSet, *, held_out: bool = False) -> str:
    """SHA-256 of all that decides what a model sees of the samples.

    Args:
        held_out: of the test split too, which is read if it has not been.

    Raises:
        DataError: the test split cannot be read.
    """
    digest = hashlib.sha256()
    test = data.held_out() if held_out else None
    for one in (data, *([test] if test is not None else [])):
        digest.update(repr(one.preparation).encode())
        for array in (one.x, one.y):
            _take_up(digest, np.asarray(array))
    return digest.hexdigest()


def stamp_of(path: Path) -> str | None:
    """Of a file, or of all that is in a folder: names, sizes and times of change, and nothing of what is in them.

    Returns:
        None where a change could have gone unseen, for the last one was just now.

    Raises:
        OSError: it is not there, or cannot be looked at.
    """
    digest, latest = hashlib.sha256(), 0
    for name, status in _files(path):
        latest = max(latest, status.st_mtime_ns, status.st_ctime_ns)
        told = [name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest() if time.time() - latest / 1e9 > _SETTLED else None


def _files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """In an order that is always the same; what is hidden is no data."""
    if not path.is_dir():
        yield "", path.stat()
        return
    for place, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                file = Path(place, name)
                yield file.relative_to(path).as_posix(), file.stat()


def _take_up(digest: Any, array: np.ndarray[Any, Any]) -> None:
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    rows = max(1, _AT_ONCE // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).data)
