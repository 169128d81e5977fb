"""Processes are killed in the middle of a sweep, and the same command finishes it. `tests.batch.kills` kills more."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from nm_ode.results.study import StudyStore
from tests.batch.cases import begun, write_slow
from tests.batch.commands import (
    MEMBERS,
    WORKERS,
    below,
    dask_cluster,
    end,
    kill,
    left_over,
    ran,
    started,
    wait_for,
    whole,
)
from tests.batch.conftest import OWN, Call, of_own_code

pytestmark = pytest.mark.slow


@pytest.fixture
def right(folder: Path, call: Call) -> dict[str, dict[str, str]]:
    """What each member of the slow sweep must be, from this process."""
    text = write_slow(folder, members=4, pause=0.0).read_text()
    assert call(text, "--workers", "0", "--out", "right").exit_code == 0
    (folder / "begun.txt").unlink()
    write_slow(folder, members=4, pause=0.02)
    return whole(folder / "right")


def test_a_sweep_survives_its_processes_and_two_commands_finish_it(folder: Path, right) -> None:
    arguments = ("slow.toml", "--out", "out", "--workers", "2")
    process = started(folder, *arguments, pages=False)
    try:
        for word in (MEMBERS, WORKERS):
            before = len(begun(folder))
            wait_for(lambda before=before: len(begun(folder)) > before, process)
            kill(below(process, word)[0])
        before = len(begun(folder))
        wait_for(lambda: len(begun(folder)) > before, process)
    finally:
        others = below(process, "")
        kill(process)
    psutil.wait_procs(others, timeout=300)  # a worker may begin one more member before it knows
    there, before = whole(folder / "out"), len(begun(folder))
    write_slow(folder, members=4, pause=0.005)
    command = ("slow.toml", "--out", "out", "--workers", "0")
    both = [started(folder, *command, pages=False) for _ in range(2)]
    told = [one.communicate(timeout=600)[0] for one in both]
    process.communicate()
    assert [one.returncode for one in both] == [0, 0], told
    assert whole(folder / "out") == right
    assert left_over(folder / "out") == []
    assert len(begun(folder)) - before == len(right) - len(there)  # they shared what was left


def test_workers_that_are_there_already(folder: Path, right, call: Call) -> None:
    (folder / "bad").mkdir()
    (folder / "bad" / "own.py").write_text(OWN)
    (folder / "bad" / "sweep.toml").write_text(of_own_code("grows", "dies", "well"))
    with dask_cluster(folder, memory="900MB") as (address, (scheduler, *_)):
        code, told = ran(folder, "bad/sweep.toml", "--scheduler", address, pages=False)
        assert code == 1, told
        assert "1 of 3 members whole" in told
        failed = StudyStore.at(folder / "results", "sweep").failures()
        assert {name: failure.kind for name, failure in failed.items()} == {
            "what=grows": "memory",
            "what=dies": "killed",
        }
        assert "building dies" in failed["what=dies"].log

        command = ("slow.toml", "--out", "out", "--scheduler", address)
        process = started(folder, *command, pages=False)
        try:
            wait_for(lambda: len(whole(folder / "out")) > 0, process)
            kill(scheduler)
            told, _ = process.communicate(timeout=300)
        finally:
            end(process)
        assert process.returncode == 1
        assert told.count("the connection to the scheduler is lost") == 1
        assert "Traceback" not in told
    (folder / "begun.txt").unlink()
    there = whole(folder / "out")
    write_slow(folder, members=4, pause=0.0)
    assert call((folder / "slow.toml").read_text(), "--out", "out", "--workers", "0").exit_code == 0
    assert len(begun(folder)) == len(right) - len(there)
    assert whole(folder / "out") == right
    assert left_over(folder / "out") == []
