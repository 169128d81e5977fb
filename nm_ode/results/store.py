"""The store: a DataTree in Zarr v3 that either is whole or does not open.

While a case runs, its groups are collected in a folder beside the store, `run.zarr.partial`. Each group is
written under a temporary name and renamed when complete; then the root takes up the digests of its files, and only
then it counts. At the end the folder takes its final name. So whenever the process or the machine stops, a `run.zarr`
that exists is whole, and groups that were complete are found again by the next run. Every file is verified
when it is read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import xarray as xr

from nm_ode.required import as_path
from nm_ode.results.failed_reading import readable
from nm_ode.results.files import remove_leftovers, sync_folder, write_atomically
from nm_ode.results.folders import Folder, LocalFolder
from nm_ode.results.group import write_group
from nm_ode.results.identity import Identity, StoreError, require_same
from nm_ode.results.records import StudyInfo
from nm_ode.results.remote import folder_at
from nm_ode.results.root import (
    EMPTY_GROUP,
    REMEDY,
    ROOT_FILE,
    NoRootError,
    Root,
    other_version,
    read_root,
    write_root,
)
from nm_ode.results.verified import DamageError, VerifiedStore, sha256

_CHECKPOINTS = ".checkpoints"
_WRITING = ".writing-"
_REMOVING = ".removing-"


class WriteError(StoreError):
    """Results that could not be written: no room, or no access."""


@contextlib.contextmanager
def writable(place: Path | str, need: str = "room") -> Iterator[None]:
    """An OSError is a WriteError, with what to do.

    Args:
        place: where something is written, if the error does not say.
        need: what was missing, if it was not access.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{error.filename or place}: {error.strerror or error}; what was complete is kept, run the same command "
            f"again when there is {need} and access"
        ) from error


def open_store(path: Path | str) -> xr.DataTree:
    """The tree of a finished run; theta is read when used, everything else now.

    Args:
        path: of the store, `run.zarr` in the folder of results, or its URL.

    Returns:
        The groups `/discrete`, `/flows/<name>`, `/comparison/<name>` … of docs/design.md.

    Raises:
        StoreError: nothing there, unfinished, not a store of nm_ode, or damaged. Where theta alone is, when it is read.

    Example:
        After `nm-ode run diabetes_linear`:

        >>> import nm_ode
        >>> tree = nm_ode.open_store("results/diabetes_linear/run.zarr")
        >>> list(tree["flows"].children), tree["discrete"].theta.dims
        (['gradient', 'modified_2_hessian'], ('saved_step', 'param'))
    """
    if isinstance(path, str) and "://" in path:
        return _verified_tree(folder_at(path))
    path = as_path(path, "path", error=StoreError)
    _require_folder(path)
    try:
        return _verified_tree(LocalFolder(path))
    except DamageError:
        _require_folder(path)  # has a run taken it up meanwhile?
        raise


def _verified_tree(folder: Folder) -> xr.DataTree:
    root, digest = read_root(folder)
    if not root.is_finished:
        raise StoreError(f"{folder.name} is not finished: run the same case again and it goes on")
    store = VerifiedStore(folder, {ROOT_FILE: digest, **root.files}, REMEDY)
    store.require_all()
    with readable(folder.name):
        tree = xr.open_datatree(store, engine="zarr", zarr_format=3, consolidated=False)  # type: ignore[arg-type]
        for node in tree.subtree:
            for variable in node.dataset.variables.values():
                if "param" not in variable.dims:
                    variable.load()
    for name in ("digests", "digest"):
        del tree.attrs[name]
    # In the order in which they were written: Zarr lists groups as their files come to be read.
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    return xr.DataTree.from_dict(
        {path: groups[path] for path in ("/", *(f"/{group}" for group in root.digests))}
    )


def unfinished_identity(path: Path) -> Identity | None:
    """Of what the complete groups of an unfinished store are; None if there is no such store.

    Args:
        path: of the store, as it will be called when it is finished.

    Raises:
        StoreError: they were written by another version of nm_ode, or cannot be read.
    """
    partial = partial_path(path)
    try:
        root = _root_of_partial(partial)
        return root.identity if root is not None and _has_results(partial, root) else None
    except OSError as error:
        raise StoreError(f"{partial} cannot be read ({error.strerror})") from None


def partial_path(path: Path) -> Path:
    """Where the groups of an unfinished store are."""
    return path.with_name(path.name + ".partial")


class StoreWriter:
    """Writes groups, each as a whole or not at all, so that a crash costs no more than the group in progress.

    Args:
        path: the store's, when it is finished. One that is finished already, but not well, is gone on with.
        identity: of what its results are.

    Attributes:
        discarded: a sentence for whatever was there and was thrown away, since it was damaged.

    Raises:
        StoreError: the folder cannot be written, or holds groups of another study or of another version of nm_ode.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.discarded: list[str] = []
        self._partial = partial_path(path)
        self._used: set[str] = set()
        try:
            if os.path.lexists(path):
                self._take_up_finished(identity)
            self._partial.mkdir(parents=True, exist_ok=True)
            self._root = self._take_up(identity)
            self._remove_strays()
        except OSError as error:
            raise StoreError(
                f"{error.filename or path.parent} cannot be written ({error.strerror}): choose another folder with "
                "--out"
            ) from None

    def read(self, group: str) -> xr.Dataset | None:
        """A group that is complete, or None. One that is damaged is thrown away, and counts as absent.

        Raises:
            StoreError: it is what was written, and cannot be read for another reason.
            WriteError: it is damaged, and cannot be removed.
        """
        digests = self._root.digests.get(group)
        if digests is None:
            return None
        folder = self._partial / group
        store = VerifiedStore(folder, digests)
        try:
            store.require_all()
            with readable(folder):
                found = xr.load_dataset(store, engine="zarr", zarr_format=3, consolidated=False)  # type: ignore[arg-type]
        except DamageError as error:
            self.discarded.append(f"{error}; it was thrown away and is computed again")
            with writable(self._partial):
                self._remove(group)
            return None
        self._used.add(group)
        return found

    def write(self, group: str, dataset: xr.Dataset) -> None:
        """Write one group; it is there as a whole or not at all. Its checkpoint is removed.

        Raises:
            WriteError: no room, or no access.
        """
        folder = self._partial / group
        writing = self._partial / f"{_WRITING}{quote(group, safe='')}-{os.getpid()}"
        with writable(self._partial):
            try:
                digests = write_group(dataset, writing)
                self._remove(group)
                above = self._make_groups_above(group)
                writing.rename(folder)
            except BaseException:
                shutil.rmtree(writing, ignore_errors=True)
                raise
            sync_folder(folder.parent)
            self._set_digests({**self._root.digests, **above, group: digests})
            self._checkpoint(group).unlink(missing_ok=True)
        self._used.add(group)

    def checkpoint(self, group: str) -> Path:
        """Where a group that is being computed may keep how far it is, to be written with `write_atomically`.

        Only a run of the same identity finds it again. It is gone when the group is written.

        Raises:
            WriteError: no room, or no access.
        """
        with writable(self._partial):
            (self._partial / _CHECKPOINTS).mkdir(exist_ok=True)
        return self._checkpoint(group)

    def finish(self, info: StudyInfo) -> Path:
        """Add what the root says of the study, and give the store its name.

        Groups that were neither read nor written are of an earlier attempt, and do not go with the others.

        Raises:
            WriteError: no room, or no access.
        """
        with writable(self._partial):
            for group in self._root.digests:
                if not any(used == group or used.startswith(f"{group}/") for used in self._used):
                    self._remove(group)
            shutil.rmtree(self._partial / _CHECKPOINTS, ignore_errors=True)
            write_root(self._partial, self._root, info)
            self._partial.rename(self.path)
            sync_folder(self.path.parent)
        return self.path

    def _checkpoint(self, group: str) -> Path:
        return self._partial / _CHECKPOINTS / quote(group, safe="")

    def _take_up_finished(self, identity: Identity) -> None:
        """A store that is finished, but not well, is unfinished again."""
        _require_folder(self.path)
        root, _ = read_root(self.path)
        require_same(self.path, root.identity, identity)
        if os.path.lexists(self._partial):
            raise StoreError(
                f"both {self.path} and {self._partial} are there, and only one can be gone on with: move the other away"
            )
        self.path.rename(self._partial)
        sync_folder(self.path.parent)

    def _take_up(self, identity: Identity) -> Root:
        """What is there already, if it is of this identity; the root says so from now on."""
        found = _root_of_partial(self._partial)
        if found is not None and _has_results(self._partial, found):
            require_same(self._partial, found.identity, identity)
            root = replace(found, attributes={})
        else:
            root = Root(identity)
            if found is None and (_groups_in(self._partial) or _checkpoints_in(self._partial)):
                self.discarded.append(
                    f"{self._partial}: nothing says any more of which case its results are ({ROOT_FILE} is missing "
                    "or damaged); they were thrown away and are computed again"
                )
                # Before the root says whose they are.
                shutil.rmtree(self._partial / _CHECKPOINTS, ignore_errors=True)
        if root != found:
            write_root(self._partial, root)
        return root

    def _remove_strays(self) -> None:
        """What killed processes left, and groups that do not count."""
        for name in (f"{_WRITING}*", f"{_REMOVING}*"):
            for leftover in self._partial.glob(name):
                shutil.rmtree(leftover)
        for folder in (self._partial, *self._partial.glob("[!.]*/")):
            remove_leftovers(folder / ROOT_FILE)
        for checkpoint in (self._partial / _CHECKPOINTS).glob(".*"):
            checkpoint.unlink(missing_ok=True)
        files = self._root.files
        for metadata in sorted(self._partial.glob("[!.]*/**/" + ROOT_FILE)):
            name = metadata.parent.relative_to(self._partial).as_posix()
            if not any(file.startswith(f"{name}/") for file in files):
                shutil.rmtree(metadata.parent, ignore_errors=True)
            elif f"{name}/{ROOT_FILE}" not in files:
                metadata.unlink(missing_ok=True)
        for folder in self._partial.glob("[!.]*/"):
            if not any(folder.iterdir()):
                folder.rmdir()

    def _set_digests(self, digests: Mapping[str, Mapping[str, str]]) -> None:
        root = replace(self._root, digests=digests)
        write_root(self._partial, root)
        self._root = root

    def _remove(self, group: str) -> None:
        """Remove a group and those in it: first from the root, so that none counts that is half removed."""
        kept = {
            name: found
            for name, found in self._root.digests.items()
            if name != group and not name.startswith(f"{group}/")
        }
        if len(kept) < len(self._root.digests):
            self._set_digests(kept)
        folder = self._partial / group
        if folder.exists():
            removing = self._partial / f"{_REMOVING}{quote(group, safe='')}-{os.getpid()}"
            folder.rename(removing)
            shutil.rmtree(removing)

    def _make_groups_above(self, group: str) -> dict[str, dict[str, str]]:
        """The groups that hold this one, `flows` of `flows/gradient`; the digests of those that were not there."""
        made = {}
        for above in list(Path(group).parents)[-2::-1]:
            if above.as_posix() not in self._root.digests:
                (self._partial / above).mkdir(exist_ok=True)
                write_atomically(self._partial / above / ROOT_FILE, EMPTY_GROUP)
                made[above.as_posix()] = {ROOT_FILE: sha256(EMPTY_GROUP)}
        return made


def _require_folder(path: Path) -> None:
    """Raises StoreError, with what is there instead of a store, unless there is a folder."""
    try:
        if path.is_dir():
            return
        if path.is_symlink() and not path.exists():
            raise StoreError(f"{path} is a symbolic link that leads nowhere")
        if path.exists():
            raise StoreError(f"{path} is not a store of nm_ode: it is no folder")
        unfinished = partial_path(path).exists()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{str(path)!r} cannot be read ({why})") from None
    if unfinished:
        raise StoreError(
            f"{path} is not finished: its run was cut off; run the same case again and it goes on"
        )
    raise StoreError(f"no store at {path}; `nm-ode run CASE` makes one")


def _root_of_partial(partial: Path) -> Root | None:
    """What the root of an unfinished store says; None if nothing is there, or nothing that can be trusted."""
    for name, version in (("case.json", 1), ("identity.json", 2)):
        if (partial / name).exists():  # as earlier versions called it
            raise other_version(partial, version)
    try:
        return read_root(partial)[0]
    except (DamageError, NoRootError):
        return None


def _has_results(partial: Path, root: Root) -> bool:
    """Was anything computed? Until then, a mistake in the case may be corrected."""
    return bool(root.digests) or _checkpoints_in(partial)


def _checkpoints_in(partial: Path) -> bool:
    return any((partial / _CHECKPOINTS).glob("[!.]*"))


def _groups_in(partial: Path) -> bool:
    return any(partial.glob("[!.]*/" + ROOT_FILE)) or any(partial.glob("[!.]*/*/" + ROOT_FILE))
