"""The store: a DataTree in Zarr v3 that either is whole or does not open.

While a case runs, its groups are collected in a folder beside the store, `run.zarr.partial`. Each group is
written under a temporary name and renamed when complete; the root's metadata comes last; then the folder
takes its final name. So whenever the process ends, a `run.zarr` that exists is whole, and groups that were complete
are found again by the next run. Every chunk carries a checksum.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from nm_ode.required import as_path
from nm_ode.results.codec import encode
from nm_ode.results.identity import Identity, StoreError, require_same
from nm_ode.results.records import StudyInfo

SCHEMA_VERSION = 2
_IDENTITY_FILE = "identity.json"
_REMEDY = "remove it and run the case again"


def open_store(path: Path | str) -> xr.DataTree:
    """The tree of a finished run; theta is read when used, everything else now.

    Raises:
        StoreError: nothing there, unfinished, not a store of nm_ode, or damaged.
    """
    path = as_path(path, "path")
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
    _require_version(path, version)
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


def unfinished_identity(path: Path) -> Identity | None:
    """Of what the complete groups of an unfinished store are; None if there is no such store.

    Args:
        path: of the store, as it will be called when it is finished.

    Raises:
        StoreError: they were written by another version of nm_ode.
    """
    return _identity_in(partial_path(path))


def partial_path(path: Path) -> Path:
    """Where the groups of an unfinished store are."""
    return path.with_name(path.name + ".partial")


class StoreWriter:
    """Writes groups, each as a whole or not at all, so that a crash costs no more than the group in progress.

    Args:
        path: the store's, when it is finished. One that is finished already, but not well, is gone on with.
        identity: of what its results are.

    Raises:
        StoreError: the folder cannot be written, or holds groups of another study or of another version of nm_ode.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self._partial = partial_path(path)
        try:
            if path.exists():
                _require_version(
                    path, zarr.open_group(path, mode="r", zarr_format=3).attrs.get("schema_version")
                )
                _write_identity(path, identity)  # first: groups without one would belong to nobody
                path.rename(self._partial)
            self._partial.mkdir(parents=True, exist_ok=True)
            (self._partial / "zarr.json").unlink(missing_ok=True)
            for leftover in self._partial.glob(".writing-*"):
                shutil.rmtree(leftover)
            found = _identity_in(self._partial)
            if found is not None:
                require_same(self._partial, found, identity)
            _write_identity(self._partial, identity)
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

    def finish(self, info: StudyInfo) -> Path:
        """Add the root and give the store its name."""
        for folder in self._partial.iterdir():
            if folder.is_dir() and not (folder / "zarr.json").exists():
                zarr.open_group(folder, mode="a", zarr_format=3)  # a group of groups
        (self._partial / _IDENTITY_FILE).unlink()
        root = zarr.open_group(self._partial, mode="a", zarr_format=3)
        arrays = sorted(name for name, _ in _arrays(root))
        root.attrs.update({"schema_version": SCHEMA_VERSION, "arrays": arrays, **encode(info)})
        self._partial.rename(self.path)
        return self.path


def _write_identity(folder: Path, identity: Identity) -> None:
    content = {"schema_version": SCHEMA_VERSION, "case": identity.case, "code": identity.code}
    (folder / _IDENTITY_FILE).write_text(json.dumps(content))


def _identity_in(partial: Path) -> Identity | None:
    if (partial / "case.json").exists():  # as version 1 called it
        _require_version(partial, 1)
    try:
        found = json.loads((partial / _IDENTITY_FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None  # no store, or cut off before any group
    if not any(_complete_groups(partial)):
        return None  # nothing was computed yet: a mistake in the case may be corrected
    _require_version(partial, found["schema_version"])
    return Identity(found["case"], found["code"])


def _complete_groups(partial: Path) -> Iterator[Path]:
    for metadata in (*partial.glob("[!.]*/zarr.json"), *partial.glob("[!.]*/*/zarr.json")):
        yield metadata.parent


def _require_version(path: Path, version: Any) -> None:
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, and this nm_ode reads version {SCHEMA_VERSION}: run the case again "
            "into another folder with --out (the case's text is in the store, attribute 'case_text'), or open it with "
            "the version of nm_ode that wrote it"
        )


def _arrays(group: zarr.Group, prefix: str = "") -> list[tuple[str, zarr.Array[Any]]]:
    found = [(prefix + name, array) for name, array in group.arrays()]
    for name, child in group.groups():
        found += _arrays(child, f"{prefix}{name}/")
    return found
