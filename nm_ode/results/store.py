"""The store: a DataTree in Zarr v3 that either is whole or does not open.

While a case runs, its groups are collected in a folder beside the store, `run.zarr.partial`. Each group is
written under a temporary name and renamed when complete; the root's metadata comes last; then the folder
takes its final name. Whatever kills the run, a `run.zarr` that exists is whole, and what was complete is
found again by the next run. Every chunk carries a checksum.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, cast

import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from nm_ode.errors import NmOdeError

SCHEMA_VERSION = 1
_CASE_FILE = "case.json"


class StoreError(NmOdeError, RuntimeError):
    """A store that cannot be read, or that must not be written over."""


def open_store(path: Path) -> xr.DataTree:
    """The tree of a finished run; theta is read when used, everything else now.

    Raises:
        StoreError: nothing there, unfinished, not a store of nm_ode, or damaged.
    """
    if not path.exists():
        if partial_path(path).exists():
            raise StoreError(
                f"{path} is not finished: its run was cut off; run the same case again and it goes on"
            )
        raise StoreError(f"no store at {path}; `nm-ode run CASE` makes one")
    try:
        root = zarr.open_group(path, mode="r", zarr_format=3)
        version = root.attrs.get("schema_version")
    except Exception as error:
        raise StoreError(
            f"{path} is not a Zarr v3 store, or its metadata are damaged ({error}); {_REMEDY}"
        ) from None
    if version != SCHEMA_VERSION:
        raise StoreError(f"{path} has schema version {version}; this nm_ode reads version {SCHEMA_VERSION}")
    try:
        arrays = dict(_arrays(root))
        written = cast(list[str], root.attrs["arrays"])
        lost = sorted(set(written) - set(arrays))
        if lost:
            raise StoreError(f"{path} is damaged: {', '.join(lost)} missing; {_REMEDY}")
        # Missing chunks would read as fill values, silently: count them.
        for name, array in arrays.items():
            if array.nchunks_initialized != array.nchunks:
                missing = array.nchunks - array.nchunks_initialized
                raise StoreError(
                    f"{path} is damaged: {missing} of {array.nchunks} chunks of {name!r} are missing; "
                    f"{_REMEDY}"
                )
        tree = xr.open_datatree(path, engine="zarr", consolidated=False)
        for node in tree.subtree:
            for variable in node.dataset.variables.values():
                if "param" not in variable.dims:
                    variable.load()
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"{path} is damaged ({type(error).__name__}: {error}); {_REMEDY}") from None
    return tree


_REMEDY = "remove it and run the case again"


def partial_path(path: Path) -> Path:
    """Where the groups of an unfinished store are."""
    return path.with_name(path.name + ".partial")


class StoreWriter:
    """Collects groups, survives being killed, and finishes with a rename.

    Raises:
        StoreError: the folder cannot be written, or holds the groups of another case.
    """

    def __init__(self, path: Path, case: dict[str, Any]) -> None:
        self.path = path
        self._partial = partial_path(path)
        try:
            if path.exists():  # finished, but not well: go on from what was complete in it
                path.rename(self._partial)
            self._partial.mkdir(parents=True, exist_ok=True)
            (self._partial / "zarr.json").unlink(missing_ok=True)
            for leftover in self._partial.glob(".writing-*"):
                shutil.rmtree(leftover)
            _require_same_case(self._partial, case)
            (self._partial / _CASE_FILE).write_text(json.dumps(case))
        except OSError as error:
            raise StoreError(
                f"{path.parent} cannot be written ({error.strerror}): choose another folder with --out"
            ) from None

    def read(self, group: str) -> xr.Dataset | None:
        """A group that is complete, or None."""
        folder = self._partial / group
        if not (folder / "zarr.json").exists():
            return None
        return xr.load_dataset(folder, engine="zarr", consolidated=False)

    def write(self, group: str, dataset: xr.Dataset) -> None:
        """Write one group; it is there as a whole or not at all."""
        folder = self._partial / group
        writing = self._partial / f".writing-{group.replace('/', '-')}-{os.getpid()}"
        dataset.to_zarr(
            writing,
            mode="w",
            zarr_format=3,
            consolidated=False,
            write_empty_chunks=True,
            encoding={name: {"compressors": [ZstdCodec(checksum=True)]} for name in dataset.variables},
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        writing.rename(folder)

    def finish(self, attrs: dict[str, Any]) -> Path:
        """Add the root and give the store its name."""
        for folder in self._partial.iterdir():
            if folder.is_dir() and not (folder / "zarr.json").exists():
                zarr.open_group(folder, mode="a", zarr_format=3)  # a group of groups
        (self._partial / _CASE_FILE).unlink()
        root = zarr.open_group(self._partial, mode="a", zarr_format=3)
        arrays = sorted(name for name, _ in _arrays(root))
        root.attrs.update({"schema_version": SCHEMA_VERSION, "arrays": arrays, **attrs})
        self._partial.rename(self.path)
        return self.path


def _require_same_case(partial: Path, case: dict[str, Any]) -> None:
    file = partial / _CASE_FILE
    if not file.exists():
        return
    try:
        found = json.loads(file.read_text())
    except json.JSONDecodeError:
        return  # cut off while writing it, before any group
    difference = first_difference(found, case)
    if difference is not None:
        raise StoreError(another_case(partial, difference))


def another_case(path: Path, difference: str) -> str:
    """The refusal to write over somebody's results."""
    return (
        f"{path} holds the results of another case (it differs in {difference}): choose another folder with "
        "--out, give the case another name, or remove it"
    )


def first_difference(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> str | None:
    """The first key at which two cases differ, with both values; None if they are the same."""
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found = first_difference(a, b, f"{prefix}{key}.")
            if found is not None:
                return found
        elif a != b:
            return f"{prefix}{key}: {a!r} there, {b!r} here"
    return None


def _arrays(group: zarr.Group, prefix: str = "") -> list[tuple[str, zarr.Array[Any]]]:
    found = [(prefix + name, array) for name, array in group.arrays()]
    for name, child in group.groups():
        found += _arrays(child, f"{prefix}{name}/")
    return found
