"""A study's store, killed at every file operation of each thing that is done to it, and gone on with.

    python -m tests.kills.study_scenarios FOLDER [every]

It prints what was wrong, one sentence a line, and at the end how many kills there were.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dask.array  # noqa: F401 - which xarray else imports in every child
import numpy as np
import xarray as xr

from nm_ode.results import StoreError
from nm_ode.results.root import read_root
from nm_ode.results.study import StudyStore
from nm_ode.results.study.root import read_study_root
from nm_ode.results.verified import VerifiedStore, digests_of
from tests.kills.harness import kill_at, operations, start, wait
from tests.results.studies import FAILURE, identity, record, work

PLACE, OTHER = record().members[:2]
MORE = record(lrs=(0.1, 0.05, 0.2))


class Scenarios:
    """All that is tried in a folder.

    Args:
        scratch: members are made on what passes for another disk.
        every: kill at each operation, also at those inside a folder that does not count yet, of which else a few are
            tried; and also with a part of a file written.
    """

    def __init__(self, folder: Path, scratch: bool, every: bool) -> None:
        self.every = every
        self.folder, self.out, self.kills = folder, folder / "out", 0
        self.scratch = folder / "out/scratch" if scratch else None
        self.right: dict[str, str] = {}

    def store(self) -> StudyStore:
        return StudyStore.at(self.out, "sweep_x", self.scratch)

    def begin(self) -> Iterator[str]:
        """From nothing; then with values added, when a reduction is there, which ends."""
        yield from self._everywhere("begin", lambda: None, self._begin, lambda: self._is_begun(record()))

        def before() -> None:
            self._committed()
            self.store().write_reduction("convergence", _reduction(1.0))

        def more() -> None:
            self.store().begin(MORE)

        yield from self._everywhere("values added", before, more, lambda: self._is_begun(MORE))

    def commit(self) -> Iterator[str]:
        """Of a member that had failed before; one that is whole is beside it."""

        def before() -> None:
            self._committed(OTHER)
            work(self.store(), PLACE)
            self.store().fail(PLACE.name, FAILURE)

        def commit() -> None:
            """As a worker does: what is whole is not committed again."""
            store = self.store()
            store.begin(record())
            with store.claim(PLACE.name):
                if not store.is_whole(PLACE.name, identity(PLACE)):
                    if not store.is_ready(PLACE.name, identity(PLACE)):
                        raise RuntimeError("the working store is lost")
                    store.commit(PLACE.name)

        yield from self._everywhere("commit", before, commit, self._is_committed)

    def fail(self) -> Iterator[str]:
        def before() -> None:
            self._begin()
            self.store().fail(PLACE.name, FAILURE)

        def fail() -> None:
            self.store().fail(PLACE.name, FAILURE)

        def failed() -> str:
            found = self.store().failures()
            return "" if found == {PLACE.name: FAILURE} else f"failures: {found}"

        yield from self._everywhere("fail", self._begin, fail, failed)
        yield from self._everywhere("fail again", before, fail, failed)

    def reduction(self) -> Iterator[str]:
        def before() -> None:
            self._committed()
            self.store().write_reduction("convergence", _reduction(1.0))

        def write() -> None:
            self.store().write_reduction("convergence", _reduction(2.0))

        def is_written() -> str:
            found = digests_of(Path(self.store().place("convergence")))
            said = read_study_root(self.store().study).digests.get("convergence")
            return "" if found == said else "the reduction is not what the root says"

        yield from self._everywhere("reduction", before, write, is_written)

    def _everywhere(
        self, name: str, before: Callable[[], None], action: Callable[[], None], wrong: Callable[[], str]
    ) -> Iterator[str]:
        """Kill before each operation, look, and do the same again."""
        again = _done if action.__name__ == "write" else lambda action: action()
        self._clear()
        _done(before)
        kept = self.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        self.out.mkdir(exist_ok=True)
        shutil.copytree(self.out, kept)
        points = operations(action, self.out)
        for n, what in enumerate(points):
            if not self.every and _does_not_count(what) and n % 20:
                continue
            torn_too = self.every and what.startswith("open ") and "/." in what
            for torn in (False, True) if torn_too else (False,):
                self._clear()
                shutil.copytree(kept, self.out)
                kill_at(action, self.out, n, torn=torn)
                self.kills += 1
                where = f"{name}, {n} of {len(points)}, {what}, torn={torn}"
                yield from (f"{where}: {sentence}" for sentence in self._half())
                again(action)
                if sentence := wrong():
                    yield f"{where}: afterwards: {sentence}"
                yield from (f"{where}: afterwards: {sentence}" for sentence in self._half())
                self.store().begin(read_study_root(self.store().study).record)
                if strays := self._strays():
                    yield f"{where}: left: {strays}"
        self._clear()

    def _half(self) -> Iterator[str]:
        """Whatever is there is whole."""
        store = self.store()
        try:
            root = read_study_root(store.study)
        except StoreError as error:
            if store.study.names():
                yield str(error)
            return
        for group, said in root.digests.items():
            if digests_of(Path(store.place(group))) != said:
                yield f"{group} is half there"
        for place in (PLACE, OTHER):
            there = Path(store.place(place.name)).exists()
            if there != store.is_whole(place.name, identity(place)):
                yield f"{place.name} is half there"
            if there:
                yield from _wrong_files(Path(store.place(place.name)))
        store.failures()

    def _strays(self) -> list[str]:
        folder = self.out / "sweep_x"
        there = [path for path in folder.rglob("*") if path.is_file()]
        if self.scratch is not None and self.scratch.exists():
            there += [path for path in self.scratch.rglob("*") if path.is_file()]
        return sorted(str(path) for path in there if path.name.startswith(".") and path.name != ".study.lock")

    def _begin(self) -> None:
        self.store().begin(record())

    def _is_begun(self, expected: object) -> str:
        root = read_study_root(self.store().study)
        return "" if root.record == expected and not root.digests else "the root says something else"

    def _committed(self, *places: object) -> None:
        self._begin()
        for place in places or (PLACE,):
            work(self.store(), place)  # type: ignore[arg-type]
            self.store().commit(place.name)  # type: ignore[attr-defined]

    def _is_committed(self) -> str:
        store = self.store()
        if not store.is_whole(PLACE.name, identity(PLACE)):
            return "the member is not there"
        if store.failures() or (self.out / "sweep_x/failed" / PLACE.name).exists():
            return "the failure is still there"
        return "" if not (store.unfinished / PLACE.name).exists() else "the working folder is still there"

    def _clear(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)


def _reduction(value: float) -> xr.Dataset:
    return xr.Dataset({"observed_order": ("flow", np.full(2, value))})


def _wrong_files(store: Path) -> Iterator[str]:
    root, _ = read_root(store)
    for group, names in root.digests.items():
        files = VerifiedStore(store / group, names)
        for name in names:
            try:
                files.read(name)
            except StoreError as error:
                yield str(error)


def _does_not_count(what: str) -> bool:
    """Does it happen in a folder that is not in place yet, or no more, or to who has a claim?"""
    _, _, path = what.partition(" ")
    return not path.startswith("/") or any(
        name in path for name in (".writing-", ".incoming-", ".claim", ".study.lock")
    )


def _done(action: Callable[[], None]) -> None:
    """In a child: Zarr's threads do not outlive a fork."""
    if wait(start(action)) != 0:
        raise RuntimeError("the action fails undisturbed")


def _no_rename_from_scratch(scratch: Path) -> None:
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self.is_relative_to(scratch) and not Path(target).is_relative_to(scratch):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    Path.rename = across  # type: ignore[assignment, method-assign]


def main() -> None:
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    kills = 0
    for scratch in (False, True):
        scenarios = Scenarios(Path(sys.argv[1]), scratch, every=sys.argv[2:] == ["every"])
        if scenarios.scratch is not None:
            _no_rename_from_scratch(scenarios.scratch)
        others = (scenarios.begin, scenarios.fail, scenarios.reduction)
        for scenario in (scenarios.commit, *(others if scenarios.every or not scratch else ())):
            for sentence in scenario():
                print(sentence, flush=True)
        kills += scenarios.kills
    print(f"{kills} kills")


if __name__ == "__main__":
    main()
