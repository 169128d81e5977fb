"""Damage to any file of a store is found, at open or at first use; a damaged group is an absent one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from nm_ode.results import Identity, StoreError, open_store
from nm_ode.results.store import StoreWriter, partial_path, unfinished_identity
from tests.results.stores import IDENTITY, dataset, files_of, unfinished


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
