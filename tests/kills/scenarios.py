"""A small case, killed at its file operations, and gone on with: run as a script, which has few threads to fork with.

    python -m tests.kills.scenarios FOLDER [every]

It prints what was wrong, one sentence a line, and at the end how many kills there were.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from nm_ode.results import StoreError
from nm_ode.results.root import read_root
from nm_ode.studies import load_case, member, run_case
from tests.kills.harness import kill_at, operations, start, wait

CASE = """
name = "small"
loss = "mse"
flows = ["gradient"]

[model]
name = "linear"
inputs = 10
outputs = 1

[data]
name = "diabetes"
samples = 20

[optimizer]
lr = 0.1

[training]
steps = 3
save_every = 3

[solver]
engine = "scipy"
rtol = 1e-3
check = false
"""


class Scenarios:
    """All that is tried in a folder.

    Args:
        every: kill at each operation, also at those inside a folder that does not count yet, of which else a few are
            tried; and also with a part of a file written.
    """

    def __init__(self, folder: Path, every: bool) -> None:
        self.folder, self.every, self.kills = folder, every, 0
        self.out = folder / "out"
        self.case, self.other = folder / "case.toml", folder / "other.toml"
        self.case.write_text(CASE)
        self.other.write_text(CASE.replace("lr = 0.1", "lr = 0.3"))
        self.right = {path: self._bits_alone(path) for path in (self.case, self.other)}

    def fresh(self) -> Iterator[str]:
        """A run that is killed."""
        yield from self._killed_everywhere("fresh", None)

    def resumed(self) -> Iterator[str]:
        """A run that was killed when its first group was complete, and is killed again."""
        done = operations(self._run, self.out)
        first = next(i for i, what in enumerate(done) if what.endswith("run.zarr.partial/flows"))
        self._clear()
        kill_at(self._run, self.out, first)
        yield from self._killed_everywhere("resumed", self._set_aside())

    def failed(self) -> Iterator[str]:
        """A store that is finished, but not well, is gone on with."""
        real = member.compare
        member.compare = lambda *given, **named: real(*given, **named).assign_attrs(other="attempt")
        real_compute = run_case.__globals__["compute"]
        run_case.__globals__["compute"] = lambda *given: [*real_compute(*given), "not well"]
        self._run()
        member.compare, run_case.__globals__["compute"] = real, real_compute
        yield from self._killed_everywhere("failed", self._set_aside())

    def at_once(self) -> Iterator[str]:
        """Commands on one folder at the same time: each waits for nobody, and none disturbs another."""

        def polite() -> None:
            try:
                self._run()
            except StoreError as error:
                if "being written by another run" not in str(error):
                    raise

        codes = [wait(child) for child in [start(polite) for _ in range(4)]]
        if any(codes):
            yield f"at once: exit codes {codes}"
        self._run()
        yield from self._wrong("at once", self.case)
        self._clear()

    def no_room(self) -> Iterator[str]:
        """Files may be no longer than so many bytes: what was complete is kept, and the run goes on with room."""

        def cramped() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                self._run()
            except StoreError as error:
                if "what was complete is kept" in str(error) or "cannot be written" in str(error):
                    return
                raise
            raise RuntimeError("a run without room goes well")

        for limit in (100, 2000, 4000, 6000):
            if wait(start(cramped)) != 0:
                yield f"files of at most {limit} bytes: not a sentence"
            self._run()
            yield from self._wrong(f"files of at most {limit} bytes", self.case)
            self._clear()

    def _killed_everywhere(self, name: str, before: Path | None) -> Iterator[str]:
        self._restore(before)
        points = operations(self._run, self.out)
        for n, what in enumerate(points):
            if not self.every and (_does_not_count(what) or what in points[:n]) and n % 150:
                continue
            torn_too = self.every and what.startswith("open ") and not what.endswith(".lock")
            for torn in (False, True) if torn_too else (False,):
                self.kills += 1
                self._restore(before)
                kill_at(self._run, self.out, n, torn=torn)
                yield from self._gone_on_with(f"{name}, {n} of {len(points)}, {what}, torn={torn}")
        self._clear()

    def _gone_on_with(self, where: str) -> Iterator[str]:
        """Another case of that name is refused or run well, in a copy; this one is run well."""
        if self.every or self.kills % 8 == 0:
            yield from self._not_taken_for_another(where)
        outcome = run_case(load_case(self.case), self.case, self.out)
        if outcome.discarded:
            yield f"{where}: thrown away: {outcome.discarded}"
        yield from self._wrong(where, self.case)

    def _not_taken_for_another(self, where: str) -> Iterator[str]:
        copy = self.folder / "copy"
        shutil.copytree(self.out, copy) if self.out.exists() else copy.mkdir()
        try:
            run_case(load_case(self.other), self.other, copy)
        except StoreError as error:
            if "another case" not in str(error):
                yield f"{where}: the other case: {error}"
        else:
            yield from self._wrong(f"{where}: the other case", self.other, copy)
        shutil.rmtree(copy)

    def _wrong(self, where: str, case: Path, out: Path | None = None) -> Iterator[str]:
        folder = (out or self.out) / "small"
        if bits(folder / "run.zarr") != self.right[case]:
            yield f"{where}: other bits"
        if strays := stray(folder):
            yield f"{where}: left: {strays}"

    def _bits_alone(self, case: Path) -> dict[str, str]:
        run_case(load_case(case), case, self.out)
        found = bits(self.out / "small/run.zarr")
        self._clear()
        return found

    def _run(self) -> None:
        run_case(load_case(self.case), self.case, self.out)

    def _set_aside(self) -> Path:
        before = self.folder / "before"
        shutil.rmtree(before, ignore_errors=True)
        self.out.rename(before)
        return before

    def _restore(self, before: Path | None) -> None:
        self._clear()
        if before is not None:
            shutil.copytree(before, self.out)

    def _clear(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)


def _does_not_count(what: str) -> bool:
    """Does it happen in a folder that is not in place yet, or no more?"""
    operation, _, path = what.partition(" ")
    if ".writing-" in path:
        return "/" in path.partition(".writing-")[2] or operation != "os.rename"
    return not path.startswith("/") or ".checkpoints/" in path  # there are none


def bits(store: Path) -> dict[str, str]:
    """The digest of each file of a store that holds no clock."""
    root, _ = read_root(store)
    found = {
        f"{group}/{name}": digest for group, files in root.digests.items() for name, digest in files.items()
    }
    for group in root.digests:
        attributes = json.loads((store / group / "zarr.json").read_text())["attributes"]
        attributes.pop("wall_seconds", None)
        found[f"{group}/zarr.json"] = json.dumps(attributes, sort_keys=True)
    return found


def stray(folder: Path) -> list[str]:
    """Files beside a finished store, or in it, that are not of it."""
    root, _ = read_root(folder / "run.zarr")
    wanted = {".lock", "run.zarr/zarr.json"}
    wanted |= {f"run.zarr/{group}/{name}" for group, files in root.digests.items() for name in files}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    empty = {str(path) for path in folder.rglob("*") if path.is_dir() and not any(path.iterdir())}
    return sorted((there ^ wanted) | empty)


def main() -> None:
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # a kill loses nothing that was written; only the power's failure does
    gc.freeze()  # what is imported: a collection in a fork would copy all of it
    scenarios = Scenarios(Path(sys.argv[1]), every=sys.argv[2:] == ["every"])
    for scenario in (
        scenarios.fresh,
        scenarios.resumed,
        scenarios.failed,
        scenarios.at_once,
        scenarios.no_room,
    ):
        for sentence in scenario():
            print(sentence, flush=True)
    print(f"{scenarios.kills} kills")


if __name__ == "__main__":
    main()
