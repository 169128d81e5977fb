"""Tiny ImageNet's folders: pixels and classes as one reads them by hand, and what is not whole refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nm_ode.data import DATA, DataError, DataSet
from nm_ode.data.images.generated import GENERATED
from tests.data_images.pixels import by_hand

CLASSES, PER_CLASS, HELD_OUT = 10, 14, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data") / "tiny-imagenet-200"
    return GENERATED["tiny_imagenet"](made, classes=CLASSES, per_class=PER_CLASS, held_out=HELD_OUT, side=16)


@pytest.fixture(scope="module")
def data(folder: Path) -> DataSet:
    return DATA["tiny_imagenet"](folder)


def test_20_images_are_what_pillow_gives_class_by_class(folder: Path, data: DataSet) -> None:
    wnids = sorted(entry.name for entry in (folder / "train").iterdir())
    assert wnids != (folder / "wnids.txt").read_text().split()  # the two orders can be told apart
    looked_at = 0
    for label, wnid in enumerate(wnids):
        of_class = data.x[data.y == label]
        paths = sorted((folder / "train" / wnid / "images").iterdir())
        assert len(of_class) == len(paths) == PER_CLASS
        for place in (0, PER_CLASS - 1):
            assert torch.equal(of_class[place], by_hand(paths[place]))
            looked_at += 1
    assert looked_at == 20
    assert data.classes == tuple(wnids)


def _is_grey(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode == "L"


def test_grey_images_have_three_equal_channels(folder: Path, data: DataSet) -> None:
    grey = (data.x[:, 0] == data.x[:, 1]).all(dim=(1, 2)) & (data.x[:, 0] == data.x[:, 2]).all(dim=(1, 2))
    assert int(grey.sum()) == sum(map(_is_grey, (folder / "train").rglob("*.JPEG"))) == CLASSES
    assert data.x.dtype == torch.uint8
    assert data.y.dtype == torch.int64


def test_held_out_images_have_the_classes_of_their_annotations(folder: Path, data: DataSet) -> None:
    test = data.held_out()
    assert test is not None
    assert test.classes == data.classes
    lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    assert len(lines) == len(test.x) == HELD_OUT
    for line, x, y in zip(lines, test.x, test.y, strict=True):
        name, wnid = line.split("\t")[:2]
        assert test.classes[int(y)] == wnid
        assert torch.equal(x, by_hand(folder / "val" / "images" / name))


def test_the_first_samples_are_of_all_classes_and_begin_the_whole(folder: Path, data: DataSet) -> None:
    first = DATA["tiny_imagenet"](folder, samples=13)
    assert first.y.tolist() == [*range(10), 0, 1, 2]
    assert torch.equal(first.x, data.x[:13])
    assert torch.equal(first.y, data.y[:13])
    test = first.held_out()
    assert test is not None
    assert len(test.x) == HELD_OUT


def test_the_folder_above_does_as_well(folder: Path, data: DataSet) -> None:
    assert torch.equal(DATA["tiny_imagenet"](folder.parent, samples=5).x, data.x[:5])


def test_preparation_says_what_becomes_of_the_pixels(folder: Path, data: DataSet) -> None:
    augmented = DATA["tiny_imagenet"](folder, samples=2, augment=True, seed=5)
    assert augmented.preparation is not None
    assert augmented.preparation.augment is not None
    assert augmented.preparation.augment.seed == 5
    test = augmented.held_out()
    assert test is not None
    assert test.preparation is not None
    assert test.preparation.augment is None
    assert test.preparation.mean == augmented.preparation.mean == data.preparation.mean  # type: ignore[union-attr]
    plain = DATA["tiny_imagenet"](folder, samples=2, normalise=False).preparation
    assert plain is not None
    assert (plain.mean, plain.std) == ((0, 0, 0), (1, 1, 1))


def test_another_side_scales_the_images(folder: Path) -> None:
    data = DATA["tiny_imagenet"](folder, samples=1, side=8)
    path = sorted((folder / "train").rglob("*.JPEG"))[0]
    with Image.open(path) as image:
        scaled = np.array(image.resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert torch.equal(data.x[0], torch.from_numpy(scaled))
    assert data.image is not None
    assert data.image.side == 8


def _remove(place: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        path = next(root.glob(place))
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _cut_off(root: Path) -> None:
    path = sorted((root / "train").rglob("*_3.JPEG"))[0]
    path.write_bytes(path.read_bytes()[:-60])


def _never_written(root: Path) -> None:
    """As a disk leaves a file whose end it was told of and never got."""
    path = sorted((root / "train").rglob("*_3.JPEG"))[0]
    content = path.read_bytes()
    path.write_bytes(content[:-60] + bytes(60))


def _empty(root: Path) -> None:
    sorted((root / "train").rglob("*_3.JPEG"))[0].write_bytes(b"")


def _no_image(root: Path) -> None:
    sorted((root / "train").rglob("*_3.JPEG"))[0].write_text("<html>not found</html>")


def _fewer_and_unlisted(root: Path) -> None:
    wnid = sorted((root / "train").iterdir())[4]
    (wnid / f"{wnid.name}_boxes.txt").unlink()
    (wnid / "images" / f"{wnid.name}_3.JPEG").unlink()


def _another_size(root: Path) -> None:
    path = sorted((root / "train").rglob("*_3.JPEG"))[0]
    Image.new("RGB", (16, 17)).save(path)


def _deep(root: Path) -> None:
    path = sorted((root / "train").rglob("*_3.JPEG"))[0]
    Image.fromarray(np.full((16, 16), 3000, np.uint16)).save(path, "PNG")


def _foreign_class(root: Path) -> None:
    (root / "train" / "n99999999" / "images").mkdir(parents=True)


def _foreign_annotation(root: Path) -> None:
    path = root / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("val_3.JPEG\tn0", "val_3.JPEG\tn9"))


def _unannotated(root: Path) -> None:
    path = root / "val" / "val_annotations.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def _twice(root: Path) -> None:
    path = root / "wnids.txt"
    path.write_text(path.read_text() + path.read_text().split()[0])


NOT_WHOLE: list[tuple[Callable[[Path], None], str]] = [
    (_remove("wnids.txt"), r"no Tiny ImageNet in .*expected train/, val/ and wnids.txt, and looked .* in "),
    (_remove("train"), r"no Tiny ImageNet in .*expected train/"),
    (_remove("train/n0144*"), r"has 9 of the 10 classes in wnids.txt, and no folder n01443537"),
    (_remove("train/n0144*/images/*_3.JPEG"), r"lacks 1 of the 14 images that n01443537_boxes.txt names"),
    (_fewer_and_unlisted, r"n\d+ has 13 images where other classes have 14: unpack"),
    (_remove("val/val_annotations.txt"), r"no .*val_annotations.txt, which has the classes of the held-out"),
    (_remove("val/images"), r"no folder .*images with the images that val_annotations.txt names"),
    (_remove("val/images/val_7.JPEG"), r"lacks val_7.JPEG, which val_annotations.txt names"),
    (_remove("val"), r"no .*val_annotations.txt"),
    (_cut_off, r"n01443537_3.JPEG is cut off or no image \(.*truncated.*unpack or download"),
    (_never_written, r"n01443537_3.JPEG is cut off or no image \(truncated: it has no end marker"),
    (_empty, r"n01443537_3.JPEG is empty: unpack"),
    (_no_image, r"n01443537_3.JPEG is cut off or no image"),
    (_another_size, r"n01443537_3.JPEG has 16×17 pixels where others have 16×16: give `side`"),
    (_deep, r"n01443537_3.JPEG has pixels of the kind 'I;16', which do not fit into 8 bits"),
    (_foreign_class, r"n99999999 is no class in .*wnids.txt"),
    (_foreign_annotation, r"val_annotations.txt, line 4: 'n9\d+' is no class in wnids.txt"),
    (_unannotated, r"val_annotations.txt has no class for val_19.JPEG"),
    (_twice, r"wnids.txt names the class n\d+ twice"),
]


@pytest.mark.parametrize(("damage", "sentence"), NOT_WHOLE)
def test_what_is_not_whole_is_refused_with_what_is_missing(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    root = tmp_path / "tiny-imagenet-200"
    shutil.copytree(folder, root)
    damage(root)
    with pytest.raises(DataError, match=sentence) as caught:
        DATA["tiny_imagenet"](root)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_what_is_elsewhere_or_packed_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere; Tiny ImageNet is a folder with train/"):
        DATA["tiny_imagenet"](tmp_path / "nowhere")
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(b"PK")
    for given in (tmp_path, tmp_path / "tiny-imagenet-200.zip"):
        with pytest.raises(DataError, match=r"tiny-imagenet-200.zip is a file: unpack it"):
            DATA["tiny_imagenet"](given)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"samples": 0}, "from 1 to 140"),
        ({"samples": 141}, "141"),
        ({"samples": True}, "True"),
        ({"side": 0}, "side must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(folder: Path, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        DATA["tiny_imagenet"](folder, **options)


def test_val_sorted_into_classes_by_its_user_is_read(folder: Path, tmp_path: Path, data: DataSet) -> None:
    root = tmp_path / "sorted"
    shutil.copytree(folder, root)
    annotations = root / "val" / "val_annotations.txt"
    for line in annotations.read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (root / "val" / wnid).mkdir(exist_ok=True)
        (root / "val" / "images" / name).rename(root / "val" / wnid / name)
    annotations.unlink()
    (root / "val" / "images").rmdir()
    test = DATA["tiny_imagenet"](root).held_out()
    assert test is not None
    for x, y in zip(test.x, test.y, strict=True):
        others = data.held_out()
        assert others is not None
        (same,) = (others.x == x).all(dim=(1, 2, 3)).nonzero().squeeze(1).tolist()
        assert int(others.y[same]) == int(y)
