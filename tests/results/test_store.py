"""A store that is finished: it holds what was written, and what is none is named."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from nm_ode.results import StoreError, open_store, study_info
from nm_ode.results.files import write_atomically
from nm_ode.results.store import StoreWriter, partial_path
from tests.results.stores import IDENTITY, INFO, dataset, unfinished


def as_version_2(store: Path) -> None:
    """Its root had neither digests nor a digest."""
    content = json.loads((store / "zarr.json").read_text())
    del content["attributes"]["digests"], content["attributes"]["digest"]
    content["attributes"]["schema_version"] = 2
    (store / "zarr.json").write_text(json.dumps(content))


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


def test_a_store_of_another_version_is_refused_and_kept(store: Path) -> None:
    as_version_2(store)
    for attempt in (open_store, lambda path: StoreWriter(path, IDENTITY)):
        with pytest.raises(StoreError, match=r"schema version 2, .*run the case again into another folder"):
            attempt(store)
    assert store.exists()


def test_theta_is_read_wherever_the_process_has_gone(store: Path, monkeypatch) -> None:
    monkeypatch.chdir(store.parent)
    tree = open_store(store.name)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tree))["discrete/theta"], np.zeros((5, 3)))
    np.testing.assert_array_equal(tree["discrete/theta"], np.zeros((5, 3)))


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
