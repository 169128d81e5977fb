"""The store: whole or not there, found damaged where it is."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from nm_ode.results import Identity, StoreError, StudyInfo, open_store, study_info
from nm_ode.results.files import write_atomically
from nm_ode.results.store import StoreWriter, partial_path, unfinished_identity

CASE = {"name": "x", "optimizer": {"lr": 0.1}}
IDENTITY = Identity(CASE, {"my_net.py": "0" * 64})
INFO = StudyInfo(
    title="x",
    case=CASE,
    case_file="x.toml",
    case_text="",
    status="failed",
    versions={},
    git_commit="",
    device="cpu",
    dtype="float64",
    seed=0,
    started="",
    ended="",
    parameters=3,
    samples=5,
    failures=("one", "two"),
    code=IDENTITY.code,
)


def dataset(value: float = 1.0) -> xr.Dataset:
    return xr.Dataset(
        {"loss": ("step", np.full(5, value)), "theta": (("step", "param"), np.zeros((5, 3))), "limit": 2.0},
        coords={"step": np.arange(5), "layer": ("layer", np.array(["a", "b"], dtype=object))},
        attrs={"status": "success"},
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    writer = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    writer.write("discrete", dataset())
    writer.write("flows/gradient", dataset(2.0))
    return writer.finish(INFO)


def test_what_is_written_is_read(store: Path) -> None:
    tree = open_store(str(store))
    xr.testing.assert_equal(tree["discrete"].to_dataset(), dataset())
    xr.testing.assert_equal(tree["flows/gradient"].to_dataset(), dataset(2.0))
    assert study_info(tree) == INFO
    assert tree["discrete"].attrs == {"status": "success"}


def test_it_is_plain_zarr_v3_that_xarray_opens_by_itself(store: Path) -> None:
    with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
        assert float(tree["flows/gradient/loss"][0]) == 2.0
    assert json.loads((store / "zarr.json").read_text())["zarr_format"] == 3


def test_nothing_of_the_writing_is_left(store: Path) -> None:
    assert [path.name for path in store.parent.iterdir()] == ["run.zarr"]
    assert sorted(path.name for path in store.iterdir()) == ["discrete", "flows", "zarr.json"]


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


def as_version_2(store: Path) -> None:
    """Its root had neither digests nor a digest."""
    content = json.loads((store / "zarr.json").read_text())
    del content["attributes"]["digests"], content["attributes"]["digest"]
    content["attributes"]["schema_version"] = 2
    (store / "zarr.json").write_text(json.dumps(content))


def test_a_store_of_another_version_is_refused_and_kept(store: Path) -> None:
    as_version_2(store)
    for attempt in (open_store, lambda path: StoreWriter(path, IDENTITY)):
        with pytest.raises(StoreError, match=r"schema version 2, .*run the case again into another folder"):
            attempt(store)
    assert store.exists()


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


def changed(file: Path, position: int, mask: int) -> None:
    with open(file, "rb+") as opened:
        opened.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
        (byte,) = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ mask]))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit at the start": lambda file: changed(file, 0, 1),
    "a letter's case in the middle": lambda file: changed(file, file.stat().st_size // 2, 0x20),
    "a bit at the end": lambda file: changed(file, -1, 4),
    "cut": lambda file: os.truncate(file, file.stat().st_size - 1),
    "cut in the middle": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: os.truncate(file, 0),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\n"),
    "other JSON": lambda file: file.write_text("{}") and None,
    "removed": Path.unlink,
    "a folder": lambda file: (file.unlink(), file.mkdir())[0],
    "a link to nothing": lambda file: (file.unlink(), file.symlink_to("nowhere"))[0],
}


def files_of(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def test_damage_to_any_file_is_found_when_it_is_read(store: Path) -> None:
    files = files_of(store)
    assert len(files) > 15
    for file in files:
        content = file.read_bytes()
        for name, damage in DAMAGE.items():
            damage(file)
            with pytest.raises(StoreError) as caught:
                open_store(store).load()
            assert str(store) in str(caught.value), name
            assert file.relative_to(store).as_posix() in str(caught.value), name
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink(missing_ok=True)
            file.write_bytes(content)
    xr.testing.assert_equal(open_store(store)["discrete"].to_dataset(), dataset())


@pytest.mark.parametrize("mask", [0x01, 0x20])
def test_every_byte_of_the_root_counts(store: Path, mask: int) -> None:
    file = store / "zarr.json"
    for position in range(file.stat().st_size):
        changed(file, position, mask)
        with pytest.raises(StoreError, match=r"zarr\.json"):
            open_store(store)
        changed(file, position, mask)
    open_store(store)


def test_damage_to_theta_is_found_at_first_use(store: Path) -> None:
    changed(store / "discrete/theta/c/0/0", 20, 1)
    tree = open_store(store)
    assert float(tree["discrete/loss"][0]) == 1.0
    with pytest.raises(StoreError, match=r"discrete/theta/c/0/0 is not what was written; remove it and run"):
        _ = tree["discrete/theta"].values
    with pytest.raises(StoreError, match="discrete/theta/c/0/0"):
        tree["discrete/theta"].isel(step=-1).load()


def test_theta_is_read_wherever_the_process_has_gone(store: Path, monkeypatch) -> None:
    monkeypatch.chdir(store.parent)
    tree = open_store(store.name)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tree))["discrete/theta"], np.zeros((5, 3)))
    np.testing.assert_array_equal(tree["discrete/theta"], np.zeros((5, 3)))


def test_files_that_changed_places_are_damage(store: Path) -> None:
    one, other = store / "discrete/loss/c/0", store / "flows/gradient/loss/c/0"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(StoreError, match="loss/c/0 is not what was written"):
        open_store(store)


def test_what_others_put_into_a_store_is_not_read(store: Path) -> None:
    before = open_store(store).load()
    (store / "discrete/.DS_Store").write_bytes(b"x")
    shutil.copytree(store / "discrete/loss", store / "discrete/more")
    shutil.copytree(store / "flows/gradient", store / "flows/other")
    for file in files_of(store):
        os.utime(file, (0, 0))
    assert open_store(store).load().identical(before)


def test_groups_that_are_missing_are_named(store: Path) -> None:
    shutil.rmtree(store / "flows/gradient")
    with pytest.raises(StoreError, match=r"flows/gradient/\S+ is missing"):
        open_store(store)


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        open_store(tmp_path / "run.zarr")
    (tmp_path / "file").write_text("no store")
    (tmp_path / "folder").mkdir()
    (tmp_path / "json").mkdir()
    (tmp_path / "json/zarr.json").write_text("[1]")
    zarr.create_group(tmp_path / "zarr", zarr_format=3)
    for name in ("file", "folder", "json", "zarr"):
        with pytest.raises(StoreError, match="is not a store of nm_ode") as caught:
            open_store(tmp_path / name)
        assert "remove" not in str(caught.value)  # nm_ode did not make it


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to(path), lambda path: path.symlink_to("nowhere")]
)
def test_links_that_lead_nowhere_are_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "run.zarr"
    make(path)
    for attempt in (open_store, lambda path: StoreWriter(path, IDENTITY)):
        with pytest.raises(StoreError, match="a symbolic link that leads nowhere"):
            attempt(path)


def test_a_name_that_no_file_can_have_is_a_sentence(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(StoreError):
            open_store(tmp_path / name)


def test_a_store_may_lie_elsewhere(store: Path, tmp_path: Path) -> None:
    store.rename(tmp_path / "elsewhere.zarr")
    store.symlink_to(tmp_path / "elsewhere.zarr")
    assert study_info(open_store(store)) == INFO
    writer = StoreWriter(store, IDENTITY)
    assert writer.read("discrete") is not None
    xr.testing.assert_equal(open_store(writer.finish(INFO))["discrete"].to_dataset(), dataset())


def unfinished(tmp_path: Path) -> StoreWriter:
    writer = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    writer.write("discrete", dataset())
    writer.write("flows/gradient", dataset(2.0))
    return writer


@pytest.mark.parametrize("name", ["a bit at the end", "empty", "removed", "a folder"])
def test_a_damaged_group_is_an_absent_one_and_is_named(tmp_path: Path, name: str) -> None:
    unfinished(tmp_path)
    saved, partial = tmp_path / "saved", partial_path(tmp_path / "run.zarr")
    partial.rename(saved)
    for file in files_of(saved / "flows/gradient"):
        shutil.copytree(saved, partial)
        DAMAGE[name](partial / file.relative_to(saved))
        writer = StoreWriter(tmp_path / "run.zarr", IDENTITY)
        assert writer.read("flows/gradient") is None
        xr.testing.assert_equal(writer.read("discrete"), dataset())
        (sentence,) = writer.discarded
        assert f"flows/gradient is damaged: {file.relative_to(saved / 'flows/gradient')}" in sentence
        assert "thrown away and is computed again" in sentence
        assert StoreWriter(tmp_path / "run.zarr", IDENTITY).read("flows/gradient") is None
        shutil.rmtree(partial)


@pytest.mark.parametrize("name", [name for name in DAMAGE if name != "a folder"])
def test_groups_that_nothing_says_whose_they_are_do_not_count(tmp_path: Path, name: str) -> None:
    unfinished(tmp_path)
    root = partial_path(tmp_path / "run.zarr") / "zarr.json"
    DAMAGE[name](root)
    assert unfinished_identity(tmp_path / "run.zarr") is None
    writer = StoreWriter(tmp_path / "run.zarr", Identity({"name": "x", "optimizer": {"lr": 0.3}}))
    assert writer.read("discrete") is None
    (sentence,) = writer.discarded
    assert "nothing says any more of which case" in sentence
    assert [path.name for path in root.parent.iterdir()] == ["zarr.json"]


def test_a_group_that_cannot_be_read_just_now_is_kept(tmp_path: Path, monkeypatch) -> None:
    unfinished(tmp_path)
    writer, plain = StoreWriter(tmp_path / "run.zarr", IDENTITY), Path.read_bytes

    def crowded(path: Path) -> bytes:
        if path.name == "0":
            raise OSError(24, "Too many open files", str(path))
        return plain(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", crowded)
        with pytest.raises(StoreError, match=r"discrete/\S+ cannot be read \(Too many open files\)"):
            writer.read("discrete")
    xr.testing.assert_equal(writer.read("discrete"), dataset())
    assert writer.discarded == []


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


@pytest.mark.skipif(not hasattr(os, "umask"), reason="modes of POSIX")
def test_everybody_may_read_what_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        unfinished(tmp_path)
        write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    for path in (tmp_path / "file", partial_path(tmp_path / "run.zarr") / "zarr.json"):
        assert path.stat().st_mode & 0o777 == 0o640


def test_where_nothing_can_be_written_the_sentence_says_what_is_kept(tmp_path: Path, monkeypatch) -> None:
    writer = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    writer.write("discrete", dataset())

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "where")

    for place in ("sync_tree", "write_root"):
        with monkeypatch.context() as patch:
            patch.setattr(f"nm_ode.results.store.{place}", full)
            with pytest.raises(
                StoreError, match=r"where: No space left on device; what was complete is kept"
            ):
                writer.write("flows/gradient", dataset())
        assert not list(partial_path(writer.path).glob(".writing*"))
    again = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    xr.testing.assert_equal(again.read("discrete"), dataset())
    assert again.read("flows/gradient") is None
