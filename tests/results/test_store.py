"""The store: whole or not there, found damaged where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nm_ode.results.store import StoreWriter, partial_path
from nm_ode.studies import StoreError, open_store

CASE = {"name": "x", "optimizer": {"lr": 0.1}}


def dataset(value: float = 1.0) -> xr.Dataset:
    return xr.Dataset(
        {"loss": ("step", np.full(5, value)), "theta": (("step", "param"), np.zeros((5, 3)))},
        coords={"step": np.arange(5), "layer": ("layer", np.array(["a", "b"], dtype=object))},
        attrs={"status": "success"},
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    writer = StoreWriter(tmp_path / "run.zarr", CASE)
    writer.write("discrete", dataset())
    writer.write("flows/gradient", dataset(2.0))
    return writer.finish({"title": "x"})


def test_what_is_written_is_read(store: Path) -> None:
    tree = open_store(store)
    xr.testing.assert_equal(tree["discrete"].to_dataset(), dataset())
    xr.testing.assert_equal(tree["flows/gradient"].to_dataset(), dataset(2.0))
    assert tree.attrs["title"] == "x"
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
    StoreWriter(path, CASE).write("discrete", dataset())
    with pytest.raises(StoreError, match=r"is not finished.*run the same case again"):
        open_store(path)
    with pytest.raises(StoreError, match="not a Zarr v3 store"):
        open_store(partial_path(path))


def test_an_unfinished_store_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    StoreWriter(path, CASE).write("discrete", dataset())
    writer = StoreWriter(path, CASE)
    xr.testing.assert_equal(writer.read("discrete"), dataset())
    assert writer.read("flows/gradient") is None


def test_groups_of_another_case_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    StoreWriter(path, CASE).write("discrete", dataset())
    with pytest.raises(StoreError, match=r"another case \(it differs in optimizer.lr: 0.1 there, 0.2 here\)"):
        StoreWriter(path, {"name": "x", "optimizer": {"lr": 0.2}})


def test_a_half_written_group_is_not_there(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "run.zarr"
    writer = StoreWriter(path, CASE)
    monkeypatch.setattr(
        Path, "rename", lambda self, target: (_ for _ in ()).throw(OSError(28, "no space left"))
    )
    with pytest.raises(OSError, match="no space left"):
        writer.write("discrete", dataset())
    monkeypatch.undo()
    again = StoreWriter(path, CASE)
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
