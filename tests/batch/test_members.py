"""Members of a sweep, one after the other in one process."""

from __future__ import annotations

import errno
import shutil
import threading
from pathlib import Path

import pytest

from nm_ode.results import open_store, run_info, study_info
from nm_ode.results import store as store_module
from nm_ode.results.store import StoreWriter
from nm_ode.results.study import StudyStore
from nm_ode.studies import load_case, load_sweep, run_case
from tests.batch.conftest import SWEEP, Call, of_own_code
from tests.kills.scenarios import bits

ALONE = ("--workers", "0")


def members(folder: Path, name: str = "sweep") -> dict[str, Path]:
    return {store.name: store for store in (folder / "results" / name / "study.zarr").glob("*=*")}


def store_of(folder: Path) -> StudyStore:
    return StudyStore.at(folder / "results", "sweep")


def test_each_member_is_what_its_case_gives_alone(call: Call, folder: Path) -> None:
    done = call(SWEEP, *ALONE)
    assert done.exit_code == 0, done.output
    sweep = load_sweep(folder / "sweep.toml")
    assert sweep is not None
    assert set(members(folder)) == {member.name for member in sweep.members}
    for member in sweep.members[::3]:
        alone = run_case(member.case, folder / "sweep.toml", folder / member.name)
        assert bits(members(folder)[member.name]) == bits(alone.store)
    assert "4 of 4 members whole" in done.output


def test_what_is_whole_is_not_computed_again(call: Call, folder: Path, monkeypatch) -> None:
    call(SWEEP, *ALONE)
    before = {name: bits(store) for name, store in members(folder).items()}
    lost = members(folder)["lr=0.05,seed=1"]
    shutil.rmtree(lost)
    written = []
    real = StoreWriter.finish
    monkeypatch.setattr(
        StoreWriter, "finish", lambda self, info: written.append(self.path.parent.name) or real(self, info)
    )
    assert call(SWEEP, *ALONE).exit_code == 0
    assert written == ["lr=0.05,seed=1"]
    assert {name: bits(store) for name, store in members(folder).items()} == before
    again = call(SWEEP.replace("range = 2", "range = 3"), *ALONE)  # values can be added later
    assert again.exit_code == 0, again.output
    assert sorted(written[1:]) == ["lr=0.05,seed=2", "lr=0.1,seed=2"]
    assert "done before" in call(SWEEP.replace("range = 2", "range = 3"), *ALONE).output


def test_members_of_another_case_are_not_written_over(call: Call, folder: Path) -> None:
    call(SWEEP, *ALONE)
    before = {name: bits(store) for name, store in members(folder).items()}
    other = call(SWEEP.replace("steps = 3", "steps = 6"), *ALONE)
    assert other.exit_code == 2
    assert "training.steps: 3 there, 6 here" in other.output
    assert {name: bits(store) for name, store in members(folder).items()} == before


@pytest.mark.usefixtures("with_pages")
def test_one_member_alone(call: Call, folder: Path) -> None:
    done = call(SWEEP, *ALONE, "--member", "lr=0.1,seed=1")
    assert done.exit_code == 0, done.output
    assert (folder / "results/sweep/report.html").exists()
    assert set(members(folder)) == {"lr=0.1,seed=1"}
    wrong = call(SWEEP, *ALONE, "--member", "lr=0.1,seed=4")
    assert wrong.exit_code == 2
    assert "'lr=0.1,seed=1'" in wrong.output


def test_a_member_that_raises_is_kept_with_all_that_is_needed_to_run_it_alone(
    call: Call, folder: Path
) -> None:
    case = of_own_code("raises", "well")
    done = call(case, *ALONE)
    assert done.exit_code == 1
    assert set(members(folder)) == {"what=well"}
    failed = store_of(folder).failures()["what=raises"]
    assert failed.kind == "error"
    assert "own.py, line" in failed.sentence
    assert "no model today" in failed.sentence
    assert "building raises" in failed.log
    assert "complaining raises" in failed.log
    assert "building" not in done.output  # what members print is not the command's
    assert "no model today" in done.output

    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "case.toml").write_text(failed.case_text)
    alone = load_case(folder / "elsewhere" / "case.toml")
    with pytest.raises(Exception, match="no model today"):
        run_case(alone, folder / "elsewhere" / "case.toml", folder / "elsewhere")

    (folder / "mended").touch()
    assert call(case, *ALONE).exit_code == 0
    assert set(members(folder)) == {"what=well", "what=raises"}
    assert store_of(folder).failures() == {}
    assert not list((folder / "results/sweep/failed").glob("*"))
    run_case(alone, folder / "elsewhere" / "case.toml", folder / "elsewhere")


def test_a_member_that_ends_python_ends_itself_alone(call: Call, folder: Path) -> None:
    assert call(of_own_code("exits", "well"), *ALONE).exit_code == 1
    assert "SystemExit" in store_of(folder).failures()["what=exits"].sentence
    assert set(members(folder)) == {"what=well"}


def test_a_run_that_diverges_is_a_result(call: Call, folder: Path) -> None:
    case = SWEEP.replace("[0.1, 0.05]", "[0.1, 1e200]").replace("range = 2", "range = 1")
    done = call(case, *ALONE)
    assert done.exit_code == 0, done.output
    tree = open_store(members(folder)["lr=1e200,seed=0"])
    assert study_info(tree).status == "failed"
    assert run_info(tree["discrete"].to_dataset()).status != "success"
    assert study_info(tree).failures[0] in done.output
    assert "done before" in call(case, *ALONE).output
    assert store_of(folder).failures() == {}


def test_a_member_past_its_time_is_given_up(call: Call, folder: Path) -> None:
    case = of_own_code("hangs", "well", more="max_seconds = 1")
    unlimited = case.replace("max_seconds = 1", "")
    assert call(unlimited, *ALONE, "--member", "what=well").exit_code == 0
    assert call(case, *ALONE).exit_code == 1
    failed = store_of(folder).failures()
    assert {name: failure.kind for name, failure in failed.items()} == {"what=hangs": "time"}
    assert "1 s" in failed["what=hangs"].sentence
    (folder / "mended").touch()
    assert call(unlimited, *ALONE).exit_code == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_batch(call: Call, folder: Path, monkeypatch, number: int) -> None:
    real = store_module.write_group
    written = []

    def full(dataset, folder: Path) -> dict[str, str]:
        written.append(folder.parent.parent.name)
        if len(set(written)) > 1:
            raise OSError(number, "No space left on device", str(folder))
        return real(dataset, folder)

    monkeypatch.setattr(store_module, "write_group", full)
    done = call(SWEEP, *ALONE)
    assert done.exit_code == 1
    assert done.output.count("No space left") == 1
    assert "not run 2" in done.output
    assert len(members(folder)) == 1
    assert [failure.kind for failure in store_of(folder).failures().values()] == ["disk"]
    monkeypatch.setattr(store_module, "write_group", real)
    assert call(SWEEP, *ALONE).exit_code == 0
    assert len(members(folder)) == 4


def test_a_member_of_another_command_is_waited_for(call: Call, folder: Path) -> None:
    """What the other does not finish is computed here."""
    call(SWEEP, *ALONE, "--member", "lr=0.1,seed=0")
    store = store_of(folder)
    held, over = threading.Event(), []

    def hold() -> None:
        with store.claim("lr=0.05,seed=0"):
            held.set()
            while len(members(folder)) < 3:  # the others are not kept waiting
                if release.wait(0.01):
                    break
            over.append(len(members(folder)))

    release = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert call(SWEEP, *ALONE).exit_code == 0
    finally:
        release.set()
        holder.join()
    assert over == [3]
    assert len(members(folder)) == 4


def test_killed_between_the_end_and_its_place(call: Call, folder: Path, monkeypatch) -> None:
    class KilledError(BaseException):
        pass

    def killed(self, member: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StudyStore, "commit", killed)
        assert call(SWEEP, *ALONE).exit_code == 130
    monkeypatch.setattr(
        "nm_ode.batch.member.run_case_into", lambda *given, **more: pytest.fail("computed again")
    )
    assert call(SWEEP, *ALONE, "--member", "lr=0.1,seed=0").exit_code == 0
    assert set(members(folder)) == {"lr=0.1,seed=0"}


def test_a_dry_run_writes_nothing(call: Call, folder: Path) -> None:
    told = call(SWEEP, *ALONE, "--dry-run")
    assert told.exit_code == 0, told.output
    assert "4 members, 0 of them whole, 4 to run" in told.output
    assert "measured" in told.output
    assert not (folder / "results").exists()


def test_a_case_alone_may_go_to_a_worker_too(call: Call, folder: Path) -> None:
    done = call(SWEEP.partition("[sweep]")[0], "--member", "lr=0.1")
    assert done.exit_code == 2
    assert "has no [sweep]" in done.output
    both = call(SWEEP, *ALONE, "--scheduler", "tcp://127.0.0.1:1")
    assert both.exit_code == 2
