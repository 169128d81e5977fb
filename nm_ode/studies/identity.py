"""Of what a case's results are, now: its own code, and its data on disk, which are not read anew each time."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nm_ode.data import DataSet
from nm_ode.data.digest import digest_of, stamp_of
from nm_ode.data.images.cache import users_caches
from nm_ode.errors import NmOdeError
from nm_ode.results import Identity
from nm_ode.results.files import write_atomically
from nm_ode.results.verified import sha256
from nm_ode.studies.entries import CodeTable
from nm_ode.studies.own_code import file_hash
from nm_ode.studies.schema import Case

_NO_DATA = ("cache",)  # options that are paths of something else
_LARGE = 2**26  # bytes whose digest is kept between two commands
_WHILE = 10.0  # seconds for which a folder is not looked at again
_known: dict[str, str] = {}
_looked: dict[str, tuple[float, str | None]] = {}
_one_at_a_time = threading.Lock()


def identity_now(case: Case, there: Mapping[str, str], folder: Path) -> Identity:
    """Of results that the case would have with code and data as they are now.

    Args:
        there: path relative to the folder → digest, of the code and data of results that there are. The hash of code
            that cannot be read is ""; data that are gone are taken to be as they were.
    """
    place = data_place(case)
    here = {name: file_hash(folder / name) for name in there if name != place}
    if place is not None and place in there:
        here |= {place: there[place]} | data_hash(case, folder)
    return Identity(case.model_dump(mode="json"), here)


def data_place(case: Case) -> str | None:
    """The file or folder that the case's data are read from, as the case has it; None for none."""
    if isinstance(case.data, CodeTable):
        return None
    paths = [
        value for key, value in case.data.options.items() if isinstance(value, Path) and key not in _NO_DATA
    ]
    return paths[0].as_posix() if paths else None


def data_hash(case: Case, folder: Path, data: Any = None) -> dict[str, str]:
    """Place → digest of the samples as they are there now; empty where a case reads none from disk, or they are gone.

    Args:
        folder: of the case file.
        data: that was just read; else they are read if they have changed since their digest was taken.
    """
    place = data_place(case)
    if place is None or isinstance(case.data, CodeTable):
        return {}
    held_out = any(table.wants_held_out for table in case.observe)
    with _one_at_a_time:  # a command looks at many members at once, mostly of the same data
        key = _key(case, folder / place, held_out)
        digest = None if key is None else _remembered(key)
        if digest is None:
            try:
                read = data if isinstance(data, DataSet) else case.data.make(folder=folder)
                digest = digest_of(read, held_out=held_out)
            except (NmOdeError, ValueError, OSError):  # told by whoever needs them
                return {}
            if key is not None:
                _remember(key, digest, keep=read.x.nbytes >= _LARGE)
    return {place: digest}


def _key(case: Case, place: Path, held_out: bool) -> str | None:
    """Of all that decides about the samples, at a glance; None where a glance is not enough."""
    try:
        stamp = _stamp(place)
    except OSError:
        return None
    if stamp is None:
        return None
    said = [case.data.model_dump(mode="json"), str(place.resolve()), held_out, stamp]
    return sha256(json.dumps(said, sort_keys=True).encode())


def _stamp(place: Path) -> str | None:
    if not place.is_dir():
        return stamp_of(place)
    when, stamp = _looked.get(str(place), (0.0, None))
    if stamp is None or time.monotonic() - when > _WHILE:
        stamp = stamp_of(place)
        _looked[str(place)] = time.monotonic(), stamp
    return stamp


def _remembered(key: str) -> str | None:
    if key not in _known:
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            digest = _kept(key).read_text(encoding="ascii").strip()
            if len(digest) == len(sha256(b"")):
                _known[key] = digest
    return _known.get(key)


def _remember(key: str, digest: str, *, keep: bool) -> None:
    _known[key] = digest
    if keep:
        with contextlib.suppress(OSError, RuntimeError):  # no place for it: they are read again
            place = _kept(key)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, digest.encode("ascii"))


def _kept(key: str) -> Path:
    return users_caches().with_name("digests") / key
