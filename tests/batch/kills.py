"""A sweep whose processes are killed at random moments, and finished by the same command.

    python -m tests.batch.kills FOLDER [KILLS]

It prints what was wrong, one sentence a line, and at the end how many kills there were. Each kind of process is killed
so many times: those that compute members, the Dask workers, the command, and a scheduler that is there already.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.batch.cases import begun, write_slow
from tests.batch.commands import (
    MEMBERS,
    WORKERS,
    below,
    dask_cluster,
    kill,
    left_over,
    ran,
    started,
    wait_for,
    whole,
)


class Kills:
    """All that is tried in a folder.

    Args:
        times: that each kind of process is killed.
        members: of the sweep.
    """

    def __init__(self, folder: Path, times: int, members: int, seed: int = 0) -> None:
        self.folder, self.times, self.kills = folder, times, 0
        self.case = write_slow(folder, members)
        self._random = random.Random(seed)
        code, told = ran(folder, str(self.case), "--out", "right", "--workers", "0")
        if code:
            raise RuntimeError(told)
        self.right = whole(folder / "right")

    def of_members(self) -> Iterator[str]:
        """One command; its members' processes are killed in the middle of a member, and its Dask workers."""
        yield from self._while_it_runs("processes of members", MEMBERS)

    def of_workers(self) -> Iterator[str]:
        """One command; its Dask workers are killed."""
        yield from self._while_it_runs("Dask workers", WORKERS)

    def of_command(self) -> Iterator[str]:
        """Commands that are killed one after the other, each by the next, which is started at once."""
        self._clear()
        for _ in range(self.times):
            process, before = started(self.folder, *self._arguments), len(begun(self.folder))
            try:
                wait_for(lambda before=before: len(begun(self.folder)) > before, process)
            except RuntimeError:  # it was faster, and there is nothing left
                process.communicate()
                self._clear()
                continue
            self._pause()
            there = set(whole(self.folder / "out"))
            beginnings = len(begun(self.folder))
            kill(process)
            self.kills += 1
            yield from self._again("command", there, beginnings)
        yield from self._finished("command")

    def of_scheduler(self) -> Iterator[str]:
        """Schedulers that are killed under a command, which says so; the next finds another."""
        self._clear()
        for _ in range(self.times):
            before = len(begun(self.folder))
            with dask_cluster(self.folder) as (address, (scheduler, *_)):
                process = started(self.folder, str(self.case), "--out", "out", "--scheduler", address)
                try:
                    wait_for(lambda before=before: len(begun(self.folder)) > before, process)
                except RuntimeError:
                    self._clear()
                    continue
                self._pause()
                over = process.poll()
                kill(scheduler)
                self.kills += 1
                told, _ = process.communicate(timeout=120)
                if (
                    over is None
                    and process.returncode
                    and "the connection to the scheduler is lost" not in told
                ):
                    yield f"scheduler: exit code {process.returncode}: {told}"
            there = set(whole(self.folder / "out"))
            if there >= set(self.right):
                self._clear()
        with dask_cluster(self.folder) as (address, _):
            code, told = ran(self.folder, str(self.case), "--out", "out", "--scheduler", address)
        if code:
            yield f"scheduler: exit code {code}: {told}"
        yield from self._wrong("scheduler")

    @property
    def _arguments(self) -> list[str]:
        return [str(self.case), "--out", "out", "--workers", "2"]

    def _while_it_runs(self, what: str, word: str) -> Iterator[str]:
        self._clear()
        killed = 0
        process = started(self.folder, *self._arguments)
        while killed < self.times:
            before = len(begun(self.folder))
            try:
                wait_for(lambda before=before: len(begun(self.folder)) > before, process)
            except RuntimeError:  # all members are over
                yield from self._ended(what, process)
                self._clear()
                process = started(self.folder, *self._arguments)
                continue
            self._pause(0.5)
            there = below(process, word)
            if there:
                kill(self._random.choice(there))
                killed += 1
                self.kills += 1
        yield from self._ended(what, process)

    def _ended(self, what: str, process) -> Iterator[str]:
        told, _ = process.communicate(timeout=600)
        # A member whose processes were killed three times by chance has failed, and is tried again.
        if process.returncode not in (0, 1) or (process.returncode == 1 and "was killed" not in told):
            yield f"{what}: exit code {process.returncode}: {told}"
        yield from self._finished(what)

    def _finished(self, what: str) -> Iterator[str]:
        code, told = ran(self.folder, *self._arguments)
        if code:
            yield f"{what}: exit code {code}: {told}"
        yield from self._wrong(what)
        before = begun(self.folder)
        code, told = ran(self.folder, *self._arguments)
        if code or begun(self.folder) != before:
            yield f"{what}: all was whole, and the same command computed something: {told}"

    def _again(self, what: str, there: set[str], beginnings: int) -> Iterator[str]:
        """What was whole when the command was killed is not begun again, and not changed."""
        now = whole(self.folder / "out")
        for name in there:
            if now.get(name) != self.right[name]:
                yield f"{what}: {name} was whole, and is not what it was"
        time.sleep(0.5)
        later = begun(self.folder)[beginnings:]
        if len(later) > 2:
            yield f"{what}: a killed command went on with {later}"

    def _wrong(self, what: str) -> Iterator[str]:
        found = whole(self.folder / "out")
        for name, right in self.right.items():
            if found.get(name) != right:
                yield f"{what}: {name} is {'of other bits' if name in found else 'lost'}"
        if found.keys() - self.right.keys():
            yield f"{what}: {found.keys() - self.right.keys()} are no members"
        if strays := left_over(self.folder / "out"):
            yield f"{what}: left: {strays}"

    def _pause(self, longest: float = 3.0) -> None:
        time.sleep(self._random.uniform(0, longest))

    def _clear(self) -> None:
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        (self.folder / "begun.txt").unlink(missing_ok=True)


def main() -> None:
    folder, times = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    kinds = sys.argv[3:] or ["of_members", "of_workers", "of_command", "of_scheduler"]
    folder.mkdir(parents=True, exist_ok=True)
    kills = Kills(folder, times, members=6 + times)
    for kind in kinds:
        for sentence in getattr(kills, kind)():
            print(sentence, flush=True)
        print(f"# {kind}: {kills.kills} kills so far", flush=True)
    print(f"{kills.kills} kills")


if __name__ == "__main__":
    main()
