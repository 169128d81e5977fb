"""The store of a study: members appear in it whole, each once, whoever computes them and whenever that stops."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import xarray as xr
from filelock import FileLock

from nm_ode.results.folders import Folder, LocalFolder
from nm_ode.results.identity import Identity, StoreError, require_same
from nm_ode.results.remote import RemoteFolder, folder_at
from nm_ode.results.root import ROOT_FILE, add_metadata, read_root
from nm_ode.results.store import writable
from nm_ode.results.study.begin import RUN, begun, is_there
from nm_ode.results.study.claims import Busy, clear, locked
from nm_ode.results.study.failures import read_failures, remove_leftovers_of_failure, write_failure
from nm_ode.results.study.leases import Lease, leased
from nm_ode.results.study.reader import FAILED, STUDY
from nm_ode.results.study.record import Failure, StudyRecord
from nm_ode.results.study.reductions import add_reduction

_UNFINISHED, _LOCK = "unfinished", ".study.lock"
_CLAIMS = "claims"
_TRIES = 100


class StudyStore:
    """A study's folder. Members are computed on a local disk, and appear in the store in one step, when they are whole.

    What is there at any moment, whatever was killed: a member's store is whole or absent; a reduction is; the root says
    what it said before or what it says after.

    Args:
        folder: of the study: `study.zarr`, failures, reports.
        unfinished: local folder with one for each member that is not whole.
    """

    def __init__(self, folder: Folder, unfinished: Path) -> None:
        self.folder, self.unfinished = folder, unfinished
        self.study = folder.below(STUDY)
        self._failed = folder.below(FAILED)
        self._held: dict[str, Lease | None] = {}

    @classmethod
    def at(cls, out: str | Path, name: str, scratch: Path | None = None) -> StudyStore:
        """The store of the study of this name.

        Args:
            out: folder, which gets a folder of the study's name; or a URL that fsspec knows (s3://bucket/results).
            scratch: local folder for members that are not whole; of other studies too. By default they are beside the
                study, or for a URL in the user's cache.

        Raises:
            StoreError: nothing is known of such URLs.
        """
        folder = folder_at(out).below(name)
        if scratch is None and isinstance(folder, LocalFolder):
            return cls(folder, folder.path / _UNFINISHED)
        place = str(folder.path) if isinstance(folder, LocalFolder) else folder.name
        key = hashlib.sha256(place.encode()).hexdigest()[:12]
        return cls(folder, (scratch or _cache()).absolute() / f"{name}-{key}")

    def begin(self, record: StudyRecord) -> list[str]:
        """Say what the study is: write the root, or replace it.

        Returns:
            Sentences on what is there and no longer part of the study.

        Raises:
            StoreError: what is there is another study's, or not nm_ode's; or the folder cannot be written.
        """
        try:
            with self._root_to_write():
                return begun(self.study, self._failed, self.unfinished, record)
        except OSError as error:
            where = self.folder.name
            remedy = (
                "look at the address, the access and the connection"
                if self.is_remote
                else "choose another folder with --out"
            )
            raise StoreError(
                f"{error.filename or where} cannot be written ({error.strerror or error}): {remedy}"
            ) from error

    def is_whole(self, member: str, identity: Identity) -> bool:
        """Are the member's results there? Its root alone is read.

        Raises:
            StoreError: they are of another case or other code, or the root is damaged.
        """
        folder = self.study.below(member)
        try:
            there = is_there(self.study, member)
            if not there and (self.is_remote or not self.study.names(member)):
                return False  # an upload's root comes last
        except OSError as error:
            raise StoreError(
                f"{folder.name} cannot be read ({error.strerror or error}): look at the access to it, or choose "
                "another place with --out"
            ) from error
        root, _ = read_root(folder)
        require_same(folder.name, root.identity, identity)
        return root.is_finished

    @property
    def is_remote(self) -> bool:
        return not isinstance(self.folder, LocalFolder)

    def is_ready(self, member: str, identity: Identity) -> bool:
        """Is the working store finished, and of this identity, so that it need only be committed?"""
        try:
            root, _ = read_root(self.working(member))
            require_same(self.working(member), root.identity, identity)
        except StoreError:
            return False
        return root.is_finished

    def working(self, member: str) -> Path:
        """Where the member's store is made: a local path."""
        return self.unfinished / member / RUN

    def claim(self, member: str) -> AbstractContextManager[None]:
        """The member, for this process alone. Look whether it is whole again once it is claimed.

        Entering raises Busy (a StoreError) if another process has it, and WriteError if nothing can be written.
        """
        return self._claimed(member)

    def commit(self, member: str) -> None:
        """Put the finished working store into the study, in one step; what was kept of a failure is removed.

        A member that is not claimed is claimed meanwhile.

        Raises:
            WriteError: no room, no access or no connection. The working store stays for the next try.
            StoreError: the working store is not finished.
        """
        with self._alone(member):
            self._commit(member)

    def _commit(self, member: str) -> None:
        working = self.working(member)
        if not read_root(working)[0].is_finished:
            raise StoreError(f"{working} is not finished: run the same case again and it goes on")
        with self._explained():
            add_metadata(working)
            if (lease := self._held[member]) is not None:
                lease.require()
            self.study.take(working, member, last=ROOT_FILE)
            self._failed.remove(member)
            clear(working.parent)

    def fail(self, member: str, failure: Failure) -> None:
        """Keep why the member has no results. What was complete of it stays for the next try.

        Raises:
            WriteError: no room, or no access.
        """
        with self._explained():
            if isinstance(self._failed, LocalFolder):
                with contextlib.suppress(Busy), self._alone(member):
                    remove_leftovers_of_failure(self._failed, member)
            write_failure(self._failed, member, failure)

    def failures(self) -> dict[str, Failure]:
        """Of each member that failed and is not whole since.

        Raises:
            StoreError: they cannot be read.
        """
        try:
            found = read_failures(self._failed)
            return {member: failure for member, failure in found.items() if not is_there(self.study, member)}
        except OSError as error:
            raise StoreError(f"{self._failed.name} cannot be read ({error.strerror or error})") from error

    def write_reduction(self, group: str, dataset: xr.Dataset) -> None:
        """Write a group beside the members, or replace it; it is there as a whole or not at all.

        Raises:
            WriteError: no room, or no access.
        """
        with self._explained(), self._root_to_write():
            add_reduction(self.study, self.unfinished, group, dataset)

    def write_file(self, name: str, content: bytes) -> str:
        """Write a file beside `study.zarr`, a report say.

        Returns:
            Its path or URL.

        Raises:
            WriteError: no room, or no access.
        """
        with self._explained():
            self.folder.write(name, content)
        return self.folder.place(name)

    def place(self, member: str) -> str:
        """Path or URL of a member's store."""
        return self.study.place(member)

    def _alone(self, member: str) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if member in self._held else self._claimed(member)

    @contextlib.contextmanager
    def _claimed(self, member: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with self._explained():
                stack.enter_context(locked(self.unfinished / member, member))
                self._held[member] = self._lease(member, stack)
            try:
                yield
            finally:
                del self._held[member]

    def _lease(self, member: str, stack: contextlib.ExitStack) -> Lease | None:
        """Where others may write from other machines."""
        if not isinstance(self.folder, RemoteFolder):
            return None
        return stack.enter_context(leased(self.folder.below(_CLAIMS), member))

    @contextlib.contextmanager
    def _root_to_write(self) -> Iterator[None]:
        """One after the other: the root is read and replaced."""
        beside = self.folder.path if isinstance(self.folder, LocalFolder) else self.unfinished
        beside.mkdir(parents=True, exist_ok=True)
        with FileLock(beside / _LOCK), contextlib.ExitStack() as stack:
            for tries in range(_TRIES, -1, -1):
                try:
                    self._lease(STUDY, stack)
                    break
                except Busy:
                    if not tries:
                        raise
                    time.sleep(1)
            yield

    def _explained(self) -> AbstractContextManager[None]:
        return writable(self.folder.name, "a connection" if self.is_remote else "room")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nm_ode"
