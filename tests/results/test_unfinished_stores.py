"""A store that is being written: gone on with by the same case, and by no other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import xarray as xr

from nm_ode.results import Identity, StoreError, open_store
from nm_ode.results.files import write_atomically
from nm_ode.results.store import StoreWriter, partial_path, unfinished_identity
from tests.results.stores import CASE, IDENTITY, INFO, dataset, files_of, unfinished


def test_an_unfinished_store_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    StoreWriter(path, IDENTITY).write("discrete", dataset())
    with pytest.raises(StoreError, match=r"is not finished.*run the same case again"):
        open_store(path)
    with pytest.raises(StoreError, match=r"is not finished.*run the same case again"):
        open_store(partial_path(path))


def test_an_unfinished_store_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    StoreWriter(path, IDENTITY).write("discrete", dataset())
    writer = StoreWriter(path, IDENTITY)
    xr.testing.assert_equal(writer.read("discrete"), dataset())
    assert writer.read("flows/gradient") is None


def test_groups_of_another_case_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    StoreWriter(path, IDENTITY).write("discrete", dataset())
    other = Identity({"name": "x", "optimizer": {"lr": 0.2}}, IDENTITY.code)
    with pytest.raises(StoreError, match=r"another case \(it differs in optimizer.lr: 0.1 there, 0.2 here\)"):
        StoreWriter(path, other)


def test_a_case_may_be_corrected_before_its_first_group(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    StoreWriter(path, IDENTITY)
    assert unfinished_identity(path) is None
    other = Identity({"name": "x", "optimizer": {"lr": 0.2}}, IDENTITY.code)
    StoreWriter(path, other).write("flows/gradient", dataset())
    assert unfinished_identity(path) == other


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ({"my_net.py": "1" * 64}, r"my_net.py, which has changed since"),
        ({}, r"my_net.py, which is gone since"),
    ],
)
def test_groups_of_other_code_are_not_mixed_in(tmp_path: Path, code, sentence: str) -> None:
    path = tmp_path / "run.zarr"
    StoreWriter(path, IDENTITY).write("discrete", dataset())
    with pytest.raises(StoreError, match=sentence):
        StoreWriter(path, Identity(CASE, code))


def test_a_store_that_failed_is_gone_on_with(store: Path) -> None:
    writer = StoreWriter(store, IDENTITY)
    assert not store.exists()
    assert unfinished_identity(store) == IDENTITY
    xr.testing.assert_equal(writer.read("discrete"), dataset())


@pytest.mark.parametrize(("version", "file"), [(1, "case.json"), (2, "identity.json")])
def test_an_unfinished_store_of_an_earlier_version_is_refused(
    tmp_path: Path, version: int, file: str
) -> None:
    path = tmp_path / "run.zarr"
    partial_path(path).mkdir()
    (partial_path(path) / file).write_text('{"name": "x"}')
    for attempt in (unfinished_identity, lambda path: StoreWriter(path, IDENTITY)):
        with pytest.raises(StoreError, match=f"schema version {version}"):
            attempt(path)


def test_a_half_written_group_is_not_there(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "run.zarr"
    writer = StoreWriter(path, IDENTITY)
    monkeypatch.setattr(
        Path, "rename", lambda self, target: (_ for _ in ()).throw(OSError(28, "no space left"))
    )
    with pytest.raises(StoreError, match="no space left"):
        writer.write("discrete", dataset())
    monkeypatch.undo()
    again = StoreWriter(path, IDENTITY)
    assert again.read("discrete") is None
    assert list(partial_path(path).glob(".writing*")) == []


def test_a_failed_store_whose_identity_is_another_is_not_touched(store: Path) -> None:
    before = {path: path.read_bytes() for path in files_of(store)}
    with pytest.raises(StoreError, match="another case"):
        StoreWriter(store, Identity({"name": "x", "optimizer": {"lr": 0.3}}, IDENTITY.code))
    assert {path: path.read_bytes() for path in files_of(store)} == before


def test_of_a_store_and_an_unfinished_one_none_is_written_over(store: Path) -> None:
    shutil.copytree(store, partial_path(store))
    with pytest.raises(StoreError, match=r"both .*run.zarr and .*run.zarr.partial are there"):
        StoreWriter(store, IDENTITY)
    assert store.exists()
    assert partial_path(store).exists()


def test_groups_of_an_earlier_attempt_do_not_go_with_the_others(store: Path) -> None:
    writer = StoreWriter(store, IDENTITY)
    assert writer.read("discrete") is not None
    tree = open_store(writer.finish(INFO))
    assert set(tree.children) == {"discrete"}
    assert not (store / "flows").exists()


def test_a_group_that_is_written_again_takes_those_in_it_along(tmp_path: Path) -> None:
    writer = unfinished(tmp_path)
    writer.write("discrete/curvature", dataset(3.0))
    xr.testing.assert_equal(writer.read("discrete"), dataset())
    writer.write("discrete", dataset(4.0))
    assert writer.read("discrete/curvature") is None
    assert float(writer.read("discrete")["loss"][0]) == 4.0


def test_a_checkpoint_is_found_by_the_same_identity_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    checkpoint = StoreWriter(path, IDENTITY).checkpoint("flows/gradient")
    write_atomically(checkpoint, b"half")
    (checkpoint.parent / f".{checkpoint.name}-dead").write_bytes(b"")
    assert unfinished_identity(path) == IDENTITY
    with pytest.raises(StoreError, match="another case"):
        StoreWriter(path, Identity({"name": "x"}))
    writer = StoreWriter(path, IDENTITY)
    assert writer.checkpoint("flows/gradient").read_bytes() == b"half"
    assert [found.name for found in checkpoint.parent.iterdir()] == [checkpoint.name]
    assert writer.checkpoint("flows") != writer.checkpoint("flows/gradient")
    writer.write("flows/gradient", dataset())
    assert not checkpoint.exists()
    write_atomically(writer.checkpoint("discrete"), b"half")
    finished = writer.finish(INFO)
    assert sorted(found.name for found in finished.iterdir()) == ["flows", "zarr.json"]


def test_checkpoints_that_nothing_says_whose_they_are_are_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    write_atomically(StoreWriter(path, IDENTITY).checkpoint("discrete"), b"half")
    (partial_path(path) / "zarr.json").unlink()
    writer = StoreWriter(path, IDENTITY)
    assert not writer.checkpoint("discrete").exists()
    assert len(writer.discarded) == 1


def test_where_nothing_can_be_written_the_sentence_says_what_is_kept(tmp_path: Path, monkeypatch) -> None:
    writer = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    writer.write("discrete", dataset())

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "where")

    for place in ("group.sync_tree", "store.write_root"):
        with monkeypatch.context() as patch:
            patch.setattr(f"nm_ode.results.{place}", full)
            with pytest.raises(
                StoreError, match=r"where: No space left on device; what was complete is kept"
            ):
                writer.write("flows/gradient", dataset())
        assert not list(partial_path(writer.path).glob(".writing*"))
    again = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    xr.testing.assert_equal(again.read("discrete"), dataset())
    assert again.read("flows/gradient") is None


def test_all_is_on_the_disk_before_it_is_in_place(tmp_path: Path, monkeypatch) -> None:
    """What a power cut leaves is whole only if files are synced before they get the name under which they count."""
    synced, renamed = set[int](), dict[str, int]()
    rename, replace, fsync = Path.rename, os.replace, os.fsync

    def watched(move, source, target) -> object:
        inside = ".writing-" in str(
            target
        )  # where nothing counts yet, and where Zarr renames files of its own
        for file in [] if inside else files_of(Path(source)) or [Path(source)]:
            renamed[str(file)] = file.stat().st_ino
            assert file.stat().st_ino in synced, f"{file} is not synced"
        return move(source, target)

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", lambda source, target: watched(rename, source, target))
    monkeypatch.setattr(os, "replace", lambda source, target: watched(replace, source, target))
    writer = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    writer.write("discrete", dataset())
    writer.finish(INFO)
    assert len(renamed) > 10
