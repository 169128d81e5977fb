"""The store of a study: what counts, what is refused, and who may write."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import xarray as xr

from nm_ode.results import Identity, StoreError, open_store
from nm_ode.results.folders import LocalFolder
from nm_ode.results.store import WriteError
from nm_ode.results.study import Busy, StudyStore
from nm_ode.results.study.root import read_study_root
from tests.results.studies import CASE, FAILURE, identity, member_dataset, record, work

PLACE, OTHER = record().members[:2]


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    found = StudyStore.at(tmp_path / "out", "sweep_x")
    assert found.begin(record()) == []
    return found


def test_a_member_is_absent_until_it_is_committed_and_then_a_store_as_of_a_case(store: StudyStore) -> None:
    who = identity(PLACE)
    assert not store.is_whole(PLACE.name, who)
    assert not store.is_ready(PLACE.name, who)
    with store.claim(PLACE.name):
        work(store, PLACE)
        assert store.is_ready(PLACE.name, who)
        assert not store.is_whole(PLACE.name, who)
        store.commit(PLACE.name)
    assert store.is_whole(PLACE.name, who)
    assert not store.unfinished.joinpath(PLACE.name).exists()
    tree = open_store(store.place(PLACE.name))
    xr.testing.assert_identical(tree["discrete"].to_dataset().load(), member_dataset(PLACE))
    with xr.open_datatree(store.place(PLACE.name), engine="zarr") as plain:  # from the root's own metadata
        xr.testing.assert_equal(plain["discrete"].to_dataset(), member_dataset(PLACE))


def test_what_is_not_finished_is_not_committed(store: StudyStore) -> None:
    with pytest.raises(StoreError, match="run\\.zarr"):
        store.commit(PLACE.name)
    assert not store.is_whole(PLACE.name, identity(PLACE))


def test_a_member_of_another_case_is_refused_with_the_difference(store: StudyStore) -> None:
    work(store, PLACE)
    store.commit(PLACE.name)
    with pytest.raises(StoreError, match=r"training\.steps: 5 there, 6 here"):
        store.is_whole(PLACE.name, identity(PLACE, steps=6))
    with pytest.raises(StoreError, match=r"net\.py"):
        store.is_whole(PLACE.name, Identity(identity(PLACE).case, {"net.py": "0"}))


def test_values_can_be_added_to_a_sweep_and_what_is_whole_stays_whole(store: StudyStore) -> None:
    work(store, PLACE)
    store.commit(PLACE.name)
    assert store.begin(record(lrs=(0.1, 0.05, 0.2))) == []
    assert store.is_whole(PLACE.name, identity(PLACE))
    assert len(read_study_root(store.study).record.members) == 9


def test_members_that_are_no_longer_in_the_case_stay_and_are_named(store: StudyStore) -> None:
    for place in (PLACE, OTHER):
        work(store, place)
        store.commit(place.name)
    (sentence,) = store.begin(record(seeds=(0, 2)))
    assert OTHER.name in sentence
    assert "1 member is" in sentence
    assert open_store(store.place(OTHER.name))


def test_another_case_is_refused_once_there_are_results(store: StudyStore) -> None:
    assert store.begin(record(steps=7)) == []  # a mistake may be corrected until then
    store.begin(record())
    work(store, PLACE)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"another case.*training\.steps: 5 there, 7 here"):
            store.begin(record(steps=7))
        store.commit(PLACE.name) if store.working(PLACE.name).exists() else None
    assert read_study_root(store.study).record == record()


@pytest.mark.parametrize("name", ["zarr.json", "notes/zarr.json", "notes.txt"])
def test_what_nm_ode_did_not_make_is_refused_and_left(tmp_path: Path, name: str) -> None:
    file = tmp_path / "sweep_x/study.zarr" / name
    file.parent.mkdir(parents=True)
    file.write_text('{"attributes": {}}')
    if name == "notes/zarr.json":
        (tmp_path / "sweep_x/study.zarr/other").mkdir()
    with pytest.raises(StoreError, match="not a study of nm_ode"):
        StudyStore.at(tmp_path, "sweep_x").begin(record())
    assert file.read_text() == '{"attributes": {}}'


def test_a_damaged_root_is_said_and_written_anew(store: StudyStore) -> None:
    work(store, PLACE)
    store.commit(PLACE.name)
    root = Path(store.place("zarr.json"))
    for position in (10, len(root.read_bytes()) // 2, len(root.read_bytes()) - 4):
        content = bytearray(root.read_bytes())
        content[position] ^= 1
        root.write_bytes(content)
        with pytest.raises(StoreError, match=r"zarr\.json"):
            read_study_root(store.study)
        (sentence,) = store.begin(record())
        assert "damaged" in sentence
        assert read_study_root(store.study).record == record()
    assert store.is_whole(PLACE.name, identity(PLACE))


def test_a_failure_is_kept_with_its_input_and_log_until_the_member_is_whole(store: StudyStore) -> None:
    store.fail(PLACE.name, FAILURE)
    assert store.failures() == {PLACE.name: FAILURE}
    folder = store.unfinished.parent / "failed" / PLACE.name
    assert (folder / "case.toml").read_text() == FAILURE.case_text
    (folder / "error.json").write_text("{")
    assert "damaged" in store.failures()[PLACE.name].sentence
    work(store, PLACE)
    store.commit(PLACE.name)
    assert store.failures() == {}
    assert not folder.exists()


def test_a_reduction_is_beside_the_members_and_ends_with_the_members_that_it_is_of(store: StudyStore) -> None:
    found = xr.Dataset({"observed_order": ("flow", [1.0, 2.0])})
    for value in (found, found * 2):
        store.write_reduction("convergence", value)
        with xr.open_zarr(store.place("convergence"), consolidated=False) as back:
            xr.testing.assert_equal(back, value)
    assert store.begin(record()) == []
    assert set(read_study_root(store.study).digests) == {"convergence"}
    store.begin(record(seeds=(0, 1, 2, 3)))
    assert not read_study_root(store.study).digests
    assert not Path(store.place("convergence")).exists()


def on_two_disks(monkeypatch: pytest.MonkeyPatch, one: Path, other: Path) -> None:
    """Nothing can be renamed from one into the other."""
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self.is_relative_to(one) and Path(target).is_relative_to(other):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)


def test_scratch_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = StudyStore.at(tmp_path / "out", "sweep_x", scratch=tmp_path / "scratch")
    store.begin(record())
    assert store.working(PLACE.name).is_relative_to(tmp_path / "scratch")
    other = StudyStore.at(tmp_path / "elsewhere", "sweep_x", scratch=tmp_path / "scratch")
    assert store.working(PLACE.name) != other.working(PLACE.name)
    work(store, PLACE)
    on_two_disks(monkeypatch, tmp_path / "scratch", tmp_path / "out")
    store.commit(PLACE.name)
    assert store.is_whole(PLACE.name, identity(PLACE))
    assert not any((tmp_path / "scratch").rglob("*.json"))
    xr.testing.assert_identical(
        open_store(store.place(PLACE.name))["discrete"].to_dataset().load(), member_dataset(PLACE)
    )


@pytest.mark.parametrize("place", ["root.write_atomically", "folders.sync_tree", "folders.sync_folder"])
def test_a_full_disk_in_a_commit_is_told_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    store = StudyStore.at(tmp_path / "out", "sweep_x", scratch=tmp_path / "scratch")
    store.begin(record())
    work(store, PLACE)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "where")

    on_two_disks(monkeypatch, tmp_path / "scratch", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(f"nm_ode.results.{place}", full)
        with pytest.raises(
            WriteError, match="where: No space left on device; what was complete is kept"
        ) as caught:
            store.commit(PLACE.name)
    assert getattr(caught.value.__cause__, "errno", None) == errno.ENOSPC
    if not store.is_whole(PLACE.name, identity(PLACE)):
        assert not [path for path in (tmp_path / "out").rglob("*") if "incoming" in path.name]
        assert store.is_ready(PLACE.name, identity(PLACE))
        store.commit(PLACE.name)
    assert store.is_whole(PLACE.name, identity(PLACE))
    assert store.begin(record()) == []
    assert not (store.unfinished / PLACE.name).exists()


def _hold(out: Path, ready: object, done: object) -> None:
    with StudyStore.at(out, "sweep_x").claim(PLACE.name):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_a_claim_is_for_one_process_and_ends_with_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    store = StudyStore.at(tmp_path, "sweep_x")
    store.begin(record())
    for kill in (False, True):
        ready, done = context.Event(), context.Event()
        holder = context.Process(target=_hold, args=(tmp_path, ready, done))
        holder.start()
        assert ready.wait(60)
        with pytest.raises(Busy, match=f"process {holder.pid} on ") as caught, store.claim(PLACE.name):
            pass
        assert caught.value.since
        with store.claim(OTHER.name):
            pass
        os.kill(holder.pid or 0, signal.SIGKILL) if kill else done.set()
        holder.join()
        with (
            store.claim(PLACE.name),
            pytest.raises(Busy),
            StudyStore.at(tmp_path, "sweep_x").claim(PLACE.name),
        ):
            pass


def _compete(out: Path, start: object, tally: Path) -> None:
    store = StudyStore.at(out, "sweep_x")
    start.wait(60)  # type: ignore[attr-defined]
    place = PLACE
    while not store.is_whole(place.name, identity(place)):
        try:
            with store.claim(place.name):
                if store.is_whole(place.name, identity(place)):
                    break
                with open(tally, "a") as file:
                    file.write("x")
                store.working(place.name).mkdir()
                for name in ("zarr.json", "discrete/zarr.json"):
                    target = store.working(place.name) / name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes((out / "ready" / name).read_bytes())
                store.commit(place.name)
        except Busy:
            continue


def test_of_processes_that_compete_one_computes_a_member(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    store = StudyStore.at(tmp_path, "sweep_x")
    store.begin(record())
    work(store, PLACE, discrete=xr.Dataset(attrs={"status": "success"})).rename(tmp_path / "ready")
    for i in range(4):
        tally, start = tmp_path / f"tally{i}", context.Event()
        children = [context.Process(target=_compete, args=(tmp_path, start, tally)) for _ in range(4)]
        for child in children:
            child.start()
        start.set()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 4
        assert tally.read_text() == "x"
        assert not (store.unfinished / PLACE.name).exists()
        store.study.remove(PLACE.name)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweep_x").write_text("no folder")
    with pytest.raises(StoreError, match=r"sweep_x.*--out"):
        StudyStore.at(tmp_path, "sweep_x").begin(record())
    assert LocalFolder(tmp_path).names() == ["sweep_x"]
    assert CASE["name"] == "sweep_x"
