"""The store: whole or not there, found damaged where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from nm_ode.results import Identity, StoreError, StudyInfo, open_store, study_info
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
        {"loss": ("step", np.full(5, value)), "theta": (("step", "param"), np.zeros((5, 3)))},
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
    with pytest.raises(OSError, match="no space left"):
        writer.write("discrete", dataset())
    monkeypatch.undo()
    again = StoreWriter(path, IDENTITY)
    assert again.read("discrete") is None
    assert list(partial_path(path).glob(".writing*")) == []


def chunk(store: Path, array: str) -> Path:
    return next(path for path in (store / array / "c").rglob("*") if path.is_file())


def damage_bytes(store: Path) -> None:
    file = chunk(store, "discrete/loss")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda s: chunk(s, "discrete/loss").unlink(), "1 of 1 chunks of 'discrete/loss' are missing"),
        (lambda s: chunk(s, "discrete/theta").unlink(), "chunks of 'discrete/theta' are missing"),
        (damage_bytes, "is damaged"),
        (lambda s: chunk(s, "discrete/loss").write_bytes(b""), "is damaged"),
        (lambda s: shutil.rmtree(s / "flows/gradient"), "flows/gradient/.* missing"),
        (lambda s: shutil.rmtree(s / "discrete/loss"), "discrete/loss missing"),
        (lambda s: (s / "zarr.json").write_text("{"), "not a Zarr v3 store, or its metadata are damaged"),
        (lambda s: (s / "zarr.json").unlink(), "not a Zarr v3 store"),
    ],
)
def test_damage_is_found_and_named(store: Path, damage, sentence: str) -> None:
    damage(store)
    with pytest.raises(StoreError, match=sentence) as caught:
        open_store(store)
    assert str(store) in str(caught.value)


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        open_store(tmp_path / "run.zarr")
    (tmp_path / "file").write_text("no store")
    with pytest.raises(StoreError, match="not a Zarr v3 store"):
        open_store(tmp_path / "file")
