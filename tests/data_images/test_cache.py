"""Decoded images on disk: made once, found again, never believed when anything changed or is damaged."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from nm_ode.data import DATA, DataError
from nm_ode.data.images import cache as caches
from nm_ode.data.images.generated import GENERATED


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("original") / "images"
    return GENERATED["image_folder"](made, classes=3, per_class=40, held_out=6, side=64)


class Count:
    """Images decoded so far."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, done: int, total: int) -> None:
        self.total += done == total and total


def read(folder: Path, cache: Path | None = None, **options: int) -> tuple[torch.Tensor, int]:
    """The images, and how many were decoded for them."""
    count = Count()
    data = DATA["image_folder"](folder, cache=cache, progress=count, **options)
    return data.x, count.total


def the_cache(folder: Path, suffix: str = ".npy") -> Path:
    (found,) = folder.with_name("images.nm_ode_cache").glob(f"train-*{suffix}")
    return found


def test_images_are_decoded_once(folder: Path) -> None:
    x, decoded = read(folder)
    again, then = read(folder)
    assert (decoded, then) == (120, 0)
    assert torch.equal(x, again)
    assert the_cache(folder).stat().st_size == pytest.approx(x.numel(), abs=200)


def test_what_is_written_to_the_images_never_comes_to_the_cache(folder: Path) -> None:
    x, _ = read(folder)
    kept = x.clone()
    x.zero_()
    again, decoded = read(folder)
    assert torch.equal(again, kept)
    assert decoded == 0


def test_images_beyond_memory_stay_in_their_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = read(folder)
    monkeypatch.setattr("nm_ode.data.images.reading.available", lambda: 1000)
    data = DATA["image_folder"](folder)
    assert isinstance(data.x, np.memmap)
    some = torch.tensor([7, 3], device="cpu")
    assert torch.equal(data.source().take(some)[0], replace(data, x=x).source().take(some)[0])


def test_progress_is_told_as_it_goes(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    DATA["image_folder"](folder, progress=lambda done, total: told.append((done, total)))
    assert len(told) > 1
    assert [total for _, total in told] == [120] * len(told)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (120, 120)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_neither_workers_nor_the_file_system_order_the_samples(
    folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = DATA["image_folder"](folder)
    listed = os.scandir

    class Reversed:
        def __init__(self, folder: Path) -> None:
            with listed(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("nm_ode.data.images.listing.os.scandir", Reversed)
    found = DATA["image_folder"](folder, workers=workers, cache=folder.with_name("other"))
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.y, expected.y)


def _touch(folder: Path) -> None:
    os.utime(folder / "train" / "pattern_1" / "0003.png", ns=(1, 1))


def _replace(folder: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(folder / "train" / "pattern_1" / "0003.png")


def _add(folder: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(folder / "train" / "pattern_1" / "0099.png")


@pytest.mark.parametrize(("change", "decoded"), [(_touch, 120), (_replace, 120), (_add, 121)])
def test_what_changed_is_read_again(folder: Path, change: Callable[[Path], None], decoded: int) -> None:
    read(folder)
    change(folder)
    x, now = read(folder)
    assert now == decoded
    red = (x[:, 0] == 255).all(dim=(1, 2)) & (x[:, 1:] == 0).all(dim=(1, 2, 3))
    assert int(red.sum()) == (change is not _touch)


def test_another_size_or_another_version_of_pillow_is_another_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(folder)
    assert read(folder, side=32)[1] == 120
    assert read(folder)[1] == 0
    assert read(folder, side=64)[1] == 120  # others would be scaled
    monkeypatch.setattr("nm_ode.data.images.cache.decoder", lambda: "Pillow 1.0")
    assert read(folder)[1] == 120


def test_equal_names_sizes_and_times_of_another_folder_are_not_confused(folder: Path, tmp_path: Path) -> None:
    for place, colour in (("one", "red"), ("two", "blue")):
        for name in ("a", "b"):
            path = tmp_path / place / name / "0.bmp"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), colour).save(path)
            os.utime(path, ns=(1, 1))
    shared = tmp_path / "shared"
    assert read(tmp_path / "one", shared)[0][0, :, 0, 0].tolist() == [255, 0, 0]
    assert read(tmp_path / "two", shared)[0][0, :, 0, 0].tolist() == [0, 0, 255]


def _flip(folder: Path) -> None:
    with the_cache(folder).open("r+b") as file:
        file.seek(-5000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-5000, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def _shorten(folder: Path) -> None:
    os.truncate(the_cache(folder), the_cache(folder).stat().st_size - 1)


def _other_shape(folder: Path) -> None:
    path = the_cache(folder)
    path.write_bytes(path.read_bytes().replace(b"(120, 3, 64, 64)", b"(120, 64, 64, 3)", 1))


def _other_sums(folder: Path) -> None:
    path = the_cache(folder, ".about")
    sealed = json.loads(path.read_text())
    about = json.loads(sealed["about"])
    about["sums"][0] += 1
    path.write_text(json.dumps({**sealed, "about": json.dumps(about)}))


DAMAGE: list[Callable[[Path], object]] = [
    _flip,
    _shorten,
    _other_shape,
    _other_sums,
    lambda folder: the_cache(folder).unlink(),
    lambda folder: the_cache(folder, ".about").unlink(),
    lambda folder: the_cache(folder, ".about").write_text("[]"),
    lambda folder: the_cache(folder, ".about").write_bytes(b"\xff\x00"),
    lambda folder: the_cache(folder).write_bytes(b""),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_again(folder: Path, damage: Callable[[Path], object]) -> None:
    x = read(folder)[0].clone()
    damage(folder)
    found, decoded = read(folder)
    assert decoded == 120
    assert torch.equal(found, x)
    assert read(folder)[1] == 0


def test_an_interruption_leaves_nothing_that_counts(folder: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DATA["image_folder"](folder, progress=interrupt)
    left = [path.name for path in folder.with_name("images.nm_ode_cache").iterdir()]
    assert [name for name in left if not name.endswith(".lock")] == []
    assert read(folder)[1] == 120


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    read(folder)
    left = the_cache(folder).with_name(f".{the_cache(folder).stem}-0123abcd")
    left.write_bytes(b"half")
    the_cache(folder, ".about").unlink()
    read(folder)
    assert not left.exists()


@pytest.mark.parametrize("locks", [True, False])
def test_two_at_once_get_the_same(folder: Path, locks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not locks:

        def refuse(self: FileLock) -> None:
            raise OSError("no locks here")

        monkeypatch.setattr(FileLock, "acquire", refuse)
    found: list[tuple[torch.Tensor, int]] = []
    both = [threading.Thread(target=lambda: found.append(read(folder))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][0], read(folder)[0])
    if locks:
        assert sorted(decoded for _, decoded in found) == [0, 120]  # the second waited for the first


def test_where_nothing_can_be_written_beside_the_data_the_users_caches_are_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.with_name("images.nm_ode_cache").write_text("in the way")
    own = tmp_path / "own"
    monkeypatch.setattr(caches, "users_caches", lambda: own)
    x, decoded = read(folder)
    assert (decoded, len(list(own.glob("*.npy")))) == (120, 1)
    assert read(folder)[1] == 0
    shutil.rmtree(own)
    own.write_text("in the way too")
    for _ in range(2):
        again, decoded = read(folder)  # decoded into memory each time
        assert torch.equal(again, x)
        assert decoded == 120


def test_a_user_without_a_home_has_a_cache_beside_the_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as pathlib has it

    monkeypatch.setattr(Path, "home", unknown)
    assert [read(folder)[1] for _ in range(2)] == [120, 0]


def test_a_folder_asked_for_is_used_or_refused(folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "some" / "where"
    assert [read(folder, given)[1] for _ in range(2)] == [120, 0]
    assert not folder.with_name("images.nm_ode_cache").exists()
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(
        DataError, match=r"cache: .*file cannot be written \(File exists\): give another folder"
    ):
        read(folder, in_the_way)


def test_a_disk_without_room_is_said_before_anything_is_decoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"cannot be written \(0.0 GB do not fit"):
        read(folder, tmp_path / "cache")
