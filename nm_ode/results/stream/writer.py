"""Appends to a store that grows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from filelock import FileLock, Timeout
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from nm_ode.errors import ArgumentError
from nm_ode.results.files import write_atomically
from nm_ode.results.identity import StoreError
from nm_ode.results.root import ROOT_FILE, SCHEMA_VERSION
from nm_ode.results.segments import Arrays
from nm_ode.results.stream.arrays import GrowingArray, Rows
from nm_ode.results.stream.journal import (
    JOURNAL,
    VERSION,
    Journal,
    Ledger,
    read_ledger,
    record_of,
    write_tail,
)
from nm_ode.results.stream.reader import is_recorded, keep_until, read_whole
from nm_ode.results.verified import sha256

_LOCK = ".lock"
_FINAL = ["final_state"]
"""Variables that do not grow, and that belong to the end."""


class RunWriter:
    """A store that rows are appended to.

    What is in memory is at most a chunk of each array. Made by `create` or `resume`.

    Raises:
        OSError: from each method: no room, or no access. What was written before is there.
    """

    def __init__(self, folder: Path, lock: FileLock, ledger: Ledger) -> None:
        self._folder, self._lock = folder, lock
        self._journal = Journal(folder, ledger)
        self._arrays, self._whole = dict(ledger.arrays), dict(ledger.whole)
        self._chunks: dict[str, np.ndarray] = {}
        self._filled = dict.fromkeys(self._arrays, 0)

    @classmethod
    def create(cls, folder: Path, coordinates: xr.Dataset, facts: Mapping[str, Any]) -> RunWriter:
        """A new store.

        Args:
            coordinates: those that do not grow.
            facts: what the run says of itself, as JSON has it.

        Raises:
            StoreError: there is something already, or another recorder writes there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = locked(folder)
        try:
            _require_nothing(folder)
            writer = cls(folder, lock, Ledger())
            files = _files_of(coordinates)
            writer._put({ROOT_FILE: _root({}), **files})
            writer._journal.append(
                version=VERSION, facts=facts, files={key: sha256(content) for key, content in files.items()}
            )
        except BaseException:
            lock.release()
            raise
        return writer

    @classmethod
    def resume(cls, folder: Path, begin: Callable[[Ledger], tuple[int, Mapping[str, Any]]]) -> RunWriter:
        """A store that was written before; what came after the step from which it goes on is dropped.

        Args:
            begin: given what is there, says after how many steps it goes on, and what the run says of itself; what it
                raises leaves the store as it was.

        Raises:
            StoreError: it has fewer steps, is none, or another recorder writes there.
        """
        if not is_recorded(folder):
            raise StoreError(f"{folder} holds no recorded run that could be gone on with")
        lock = locked(folder)
        try:
            ledger = read_whole(folder)
            steps, facts = begin(ledger)
            keep_until(folder, ledger, steps)
            for leftover in folder.rglob(".*-" + 8 * "[0-9a-f]"):  # of `write_atomically`
                leftover.unlink(missing_ok=True)
            writer = cls(folder, lock, ledger)
            # Zarr's own metadata must not speak of rows that are written anew.
            writer._put({ROOT_FILE: _root({})})
            writer._put({f"{name}/{ROOT_FILE}": one.metadata(0) for name, one in ledger.arrays.items()})
            for name, rows in ledger.partial.items():
                writer._fill(name, rows)
            writer.commit(facts, {})
            writer._journal.append(cut=writer._whole, forget=_FINAL if steps else [*_FINAL, "initial_state"])
        except BaseException:
            lock.release()
            raise
        return writer

    def add(self, rows: Sequence[Rows]) -> None:
        """Append rows; chunks that they fill are written.

        Raises:
            ArgumentError: rows of another shape or kind than those before.
        """
        arrived = [(part, part.values()) for part in rows]
        self._define([(part, values) for part, values in arrived if part.name not in self._arrays])
        for part, values in arrived:
            array = self._arrays[part.name]
            if values.shape[1:] != array.inner or not np.can_cast(values.dtype, array.dtype, "same_kind"):
                raise ArgumentError(
                    f"{part.name!r} was {array.dtype} of shape {array.inner}, and is now {values.dtype} of shape "
                    f"{values.shape[1:]}: a store takes one kind"
                )
            while len(values):
                room = array.chunk - self._filled[part.name]
                self._fill(part.name, values[:room])
                values = values[room:]
                if self._filled[part.name] == array.chunk:
                    self._write_chunk(array)

    def keep(self, fixed: xr.Dataset) -> None:
        """Write variables that do not grow; each is given once."""
        files = _files_of(fixed)
        self._put(files)
        self._journal.append(files={key: sha256(content) for key, content in files.items()})

    def commit(self, facts: Mapping[str, Any], state: Arrays) -> None:
        """Let all rows that came so far outlast the process.

        Args:
            state: arrays that go with the facts.
        """
        write_tail(
            self._folder,
            facts,
            state,
            whole=self._whole,
            partial={name: self._chunks[name][:n] for name, n in self._filled.items() if n},
            journal=self._journal.end,
        )

    def finish(
        self, facts: Mapping[str, Any], state: Arrays, attributes: Mapping[str, Any], scalars: xr.Dataset
    ) -> None:
        """Commit, and let Zarr's own metadata say what there is.

        Args:
            attributes: of the dataset.
            scalars: variables without a dimension.
        """
        self.commit(facts, state)
        files = _files_of(scalars)
        for name, array in self._arrays.items():
            files[f"{name}/{ROOT_FILE}"] = array.metadata(
                self._whole[name] * array.chunk + self._filled[name]
            )
            if self._filled[name]:
                files |= array.files(self._whole[name], self._chunks[name][: self._filled[name]])
        self._put(files)
        found = {
            path.parent.relative_to(self._folder).as_posix(): json.loads(path.read_bytes())
            for path in sorted(self._folder.glob(f"*/{ROOT_FILE}"))
        }
        self._put({ROOT_FILE: _root(attributes, found)})

    def close(self) -> None:
        """Let another process write here."""
        self._lock.release()

    def _define(self, arrived: Sequence[tuple[Rows, np.ndarray]]) -> None:
        """New arrays, which the journal names all at once: those of one dimension have the same rows."""
        arrays = [GrowingArray.of(rows, values) for rows, values in arrived]
        if not arrays:
            return
        self._put({f"{array.name}/{ROOT_FILE}": array.metadata(0) for array in arrays})
        self._journal.append(arrays=[record_of(array) for array in arrays])
        for array in arrays:
            self._arrays[array.name] = array
            self._whole[array.name] = self._filled[array.name] = 0

    def _fill(self, name: str, values: np.ndarray) -> None:
        if name not in self._chunks:
            self._chunks[name] = self._arrays[name].empty(self._arrays[name].chunk)
        start = self._filled[name]
        self._chunks[name][start : start + len(values)] = values
        self._filled[name] = start + len(values)

    def _write_chunk(self, array: GrowingArray) -> None:
        index, digests = self._whole[array.name], {}
        for key, content in array.files(index, self._chunks[array.name]):
            self._put({key: content})
            digests[key] = sha256(content)
        self._journal.append(chunk=[array.name, index], files=digests)
        self._whole[array.name], self._filled[array.name] = index + 1, 0

    def _put(self, files: Mapping[str, bytes]) -> None:
        for key, content in files.items():
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)


def locked(folder: Path) -> FileLock:
    """The lock of a store, taken.

    Raises:
        StoreError: another recorder has it.
    """
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"another recorder is writing to {folder}: give each recorder a store of its own"
        ) from None
    return lock


def _require_nothing(folder: Path) -> None:
    """Nothing is written over; what a recorder left that was killed before its first row is removed."""
    there = [name for name in os.listdir(folder) if name != _LOCK]
    if not there:
        return
    if (folder / JOURNAL).is_file():
        ledger = read_ledger(folder)
        if not any(ledger.rows(name) for name in ledger.arrays):
            for name in there:
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            return
        raise StoreError(
            f"{folder} holds a recorded run already: choose another path, remove it, or go on with it (resume=…)"
        )
    raise StoreError(f"{folder} is there already, and is no recorded run: choose another path")


def _files_of(dataset: xr.Dataset) -> dict[str, bytes]:
    """The files of its variables, as Zarr writes them."""
    held: dict[str, Buffer] = {}
    dataset.to_zarr(MemoryStore(held), zarr_format=3, consolidated=False, write_empty_chunks=True)
    return {key: content.to_bytes() for key, content in held.items() if key != ROOT_FILE}


def _root(attributes: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> bytes:
    """The metadata of the group; with all arrays' in it, where they are given, so that Zarr looks at no other file."""
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**attributes, "schema_version": SCHEMA_VERSION},
    }
    if arrays is not None:
        root["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(arrays),
        }
    return json.dumps(root, indent=1).encode()
