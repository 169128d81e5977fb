"""A folder for each class: numbered as torchvision does, scaled as it does, and no class map that is another's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nm_ode.data import DATA, DataError, DataSet
from nm_ode.data.images.generated import GENERATED
from tests.data_images.pixels import by_hand


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("original") / "images"
    return GENERATED["image_folder"](made, classes=4, per_class=5, held_out=12, side=8)


def images(folder: Path, **options: Any) -> DataSet:
    data: DataSet = DATA["image_folder"](folder, **options)
    return data


def test_every_image_has_the_class_of_its_folder(folder: Path) -> None:
    data = images(folder)
    test = data.held_out()
    assert test is not None
    for found, split in ((data, "train"), (test, "val")):
        classes = sorted(entry.name for entry in (folder / split).iterdir())  # as torchvision numbers them
        assert found.classes == tuple(classes)
        for label, name in enumerate(classes):
            of_class = found.x[found.y == label]
            paths = sorted((folder / split / name).iterdir())
            assert torch.equal(of_class, torch.stack([by_hand(path) for path in paths]))
    assert len(test.x) == 12


def test_a_class_without_held_out_images_changes_no_other_number(folder: Path) -> None:
    shutil.rmtree(folder / "val" / "pattern_1")
    test = images(folder).held_out()
    assert test is not None
    assert sorted(set(test.y.tolist())) == [0, 2, 3]
    for x, y in zip(test.x, test.y, strict=True):
        paths = (folder / "val" / f"pattern_{int(y)}").iterdir()
        assert any(torch.equal(x, by_hand(path)) for path in paths)


def test_folders_of_classes_alone_have_no_test_split(folder: Path) -> None:
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "pattern_2" / "deeper").mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "train" / "pattern_2" / "deeper" / "0000.png")
    (folder / "train" / "pattern_2" / "notes.txt").write_text("not an image")
    data = images(folder / "train")
    assert data.held_out() is None
    assert data.y.tolist() == [*[0, 1, 2, 3] * 5, 2]
    assert data.x[-1, :, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("width", "height"), [(13, 9), (9, 14), (6, 30), (7, 7), (40, 25)])
def test_images_of_any_shape_are_scaled_and_cut_as_torchvision_does(
    folder: Path, width: int, height: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    path = folder / "train" / "pattern_0" / "0000.png"
    Image.fromarray(pixels).save(path)
    x = images(folder, side=7, samples=1).x[0]
    with Image.open(path) as image:  # Resize(7) and CenterCrop(7), written out
        long = int(7 * max(width, height) / min(width, height))
        size = (long, 7) if width > height else (7, long)
        scaled = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        top, left = round((size[1] - 7) / 2), round((size[0] - 7) / 2)
    expected = scaled[top : top + 7, left : left + 7].transpose(2, 0, 1)
    assert torch.equal(x, torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_other_kinds_become_rgb(folder: Path, mode: str) -> None:
    kind = "tif" if mode == "CMYK" else "png"
    path = folder / "train" / "pattern_0" / f"00.{kind}"
    with Image.open(folder / "train" / "pattern_0" / "0001.png") as image:
        image.convert(mode).save(path)
    assert torch.equal(images(folder, samples=1).x[0], by_hand(path))


def test_mean_and_standard_deviation_are_of_the_training_samples(folder: Path) -> None:
    data = images(folder, samples=10)
    assert data.preparation is not None
    x = data.x.double() / 255
    torch.testing.assert_close(
        torch.tensor(data.preparation.mean, device="cpu", dtype=torch.float64),
        x.mean(dim=(0, 2, 3)),
        rtol=1e-13,
        atol=0,
    )
    torch.testing.assert_close(
        torch.tensor(data.preparation.std, device="cpu", dtype=torch.float64),
        x.transpose(0, 1).reshape(3, -1).std(dim=1, correction=0),
        rtol=1e-13,
        atol=0,
    )


def test_a_channel_that_is_constant_is_not_divided_by_zero(folder: Path) -> None:
    for path in (folder / "train").rglob("*.png"):
        Image.new("RGB", (8, 8), (0, 100, 255)).save(path)
    preparation = images(folder).preparation
    assert preparation is not None
    assert preparation.mean == (0, 100 / 255, 1)
    assert preparation.std == (1, 1, 1)


def test_of_several_held_out_folders_one_is_named(folder: Path) -> None:
    shutil.copytree(folder / "val", folder / "test")
    shutil.rmtree(folder / "test" / "pattern_0")
    with pytest.raises(DataError, match="has val and test: say with `held_out`"):
        images(folder)
    test = images(folder, held_out="test").held_out()
    assert test is not None
    assert 0 not in test.y


def _only_one_class(folder: Path) -> None:
    for name in ("pattern_1", "pattern_2", "pattern_3"):
        shutil.rmtree(folder / "train" / name)


def _emptied(folder: Path) -> None:
    for path in (folder / "train" / "pattern_2").iterdir():
        path.unlink()


def _foreign(folder: Path) -> None:
    (folder / "val" / "pattern_3").rename(folder / "val" / "Pattern_3")


def _not_square(folder: Path) -> None:
    Image.new("RGB", (8, 9)).save(folder / "train" / "pattern_0" / "0000.png")


NOT_SO: list[tuple[Callable[[Path], Any], dict[str, Any], str]] = [
    (shutil.rmtree, {}, r"no folder .*images of images"),
    (lambda folder: shutil.rmtree(folder / "train"), {}, r"has val/ and no train/"),
    (
        _only_one_class,
        {},
        r"train has the folder pattern_0 alone: expected a folder of images for each class",
    ),
    (_emptied, {}, r"pattern_2 has no image in it"),
    (_foreign, {}, r"Pattern_3 is no class of the training images: there is no .*train.Pattern_3"),
    (_not_square, {}, r"0000.png has 8×9 pixels, and networks here take squares: give `side`"),
    (lambda folder: None, {"held_out": "holdout"}, r"held_out: no folder .*holdout"),
    (lambda folder: None, {"samples": 21}, r"samples must be from 1 to 20, the size of the training set"),
]


@pytest.mark.parametrize(("change", "options", "sentence"), NOT_SO)
def test_what_is_no_such_folder_is_refused(
    folder: Path, change: Callable[[Path], Any], options: dict[str, Any], sentence: str
) -> None:
    change(folder)
    with pytest.raises(DataError, match=sentence) as caught:
        images(folder, **options)
    assert "\n" not in str(caught.value)


def test_pillow_must_not_be_told_to_read_damaged_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES is set"):
        images(folder)


def test_without_pillow_it_is_said_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"needs Pillow: pip install 'nm-ode\[images\]'"):
        images(folder)
