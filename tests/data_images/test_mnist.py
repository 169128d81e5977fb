"""MNIST from its idx files, under each of the names that they go by."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nm_ode.data import DATA, DataError
from nm_ode.data.images.generated import GENERATED

NAMES = [f"{p}-{kind}-ubyte" for p in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return GENERATED["mnist"](tmp_path_factory.mktemp("mnist"), per_class=2, held_out=7, compressed=False)


def by_hand(path: Path) -> np.ndarray:
    content = bytearray(path.read_bytes())
    if "images" in path.name:
        return np.frombuffer(content[16:], np.uint8).reshape(-1, 1, 28, 28)
    return np.frombuffer(content[8:], np.uint8).astype(np.int64)


@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz", "named .gz"])
def test_all_names_give_the_same(unpacked: Path, tmp_path: Path, below: str, mark: str, end: str) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        content = (unpacked / name).read_bytes()
        there = tmp_path / below / (name.replace("-idx", f"{mark}idx") + end.removeprefix("named "))
        there.write_bytes(gzip.compress(content) if end == ".gz" else content)
    data = DATA["mnist"](tmp_path)
    test = data.held_out()
    assert test is not None
    for found, (images, labels) in ((data, NAMES[:2]), (test, NAMES[2:])):
        assert torch.equal(found.x, torch.from_numpy(by_hand(unpacked / images)))
        assert torch.equal(found.y, torch.from_numpy(by_hand(unpacked / labels)))
        assert found.image is not None
        assert (found.image.channels, found.image.side) == (1, 28)


def test_samples_are_the_first_and_the_normalisation_is_of_all(unpacked: Path) -> None:
    whole, some = DATA["mnist"](unpacked), DATA["mnist"](unpacked, samples=3)
    assert torch.equal(some.x, whole.x[:3])
    assert whole.preparation is not None
    assert some.preparation == whole.preparation
    assert whole.preparation.mean == pytest.approx([float(whole.x.double().mean()) / 255], rel=1e-13)
    assert whole.preparation.std == pytest.approx(
        [float(whole.x.double().std(correction=0)) / 255], rel=1e-13
    )
    plain = DATA["mnist"](unpacked, normalise=False).preparation
    assert plain is not None
    assert (plain.mean, plain.std) == ((0,), (1,))


def _replaced(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return replace


NOT_WHOLE: list[tuple[Callable[[Path], None], str]] = [
    (lambda folder: (folder / NAMES[3]).unlink(), r"lacks t10k-labels-idx1-ubyte, as .gz or not"),
    (lambda folder: (folder / NAMES[0]).unlink(), r"lacks train-images-idx3-ubyte, as .gz or not"),
    (
        _replaced(NAMES[0], lambda content: content[:-1]),
        r"train-images.* has 15679 bytes .* takes 15680: download",
    ),
    (_replaced(NAMES[0], lambda content: b"<html>"), r"train-images.* is no idx file of 3 dimensions"),
    (_replaced(NAMES[1], lambda content: b""), r"train-labels.* is no idx file of 1 dimension: "),
    (
        _replaced(NAMES[1], lambda content: content[:7] + b"\x13" + content[8:-1]),
        r"20 images and .* 19 classes",
    ),
    (_replaced(NAMES[1], lambda content: content[:-1] + b"\x0a"), r"has classes up to 10: expected 0 to 9"),
    (
        _replaced(NAMES[0], lambda content: gzip.compress(content)[:-20]),
        r"train-images.* is cut off or damaged",
    ),
    (
        _replaced(NAMES[0], lambda content: content[:11] + b"\x38" + content[12:15] + b"\x0e" + content[16:]),
        r"has images of shape \(56, 14\), and networks here take squares",
    ),
]


@pytest.mark.parametrize(("damage", "sentence"), NOT_WHOLE)
def test_what_is_not_whole_is_refused(
    unpacked: Path, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    shutil.copytree(unpacked, tmp_path / "mnist")
    damage(tmp_path / "mnist")
    with pytest.raises(DataError, match=sentence) as caught:
        DATA["mnist"](tmp_path / "mnist")
    assert "\n" not in str(caught.value)


def test_a_test_split_that_is_damaged_is_seen_when_it_is_read(unpacked: Path, tmp_path: Path) -> None:
    shutil.copytree(unpacked, tmp_path / "mnist")
    _replaced(NAMES[2], lambda content: content[:-1])(tmp_path / "mnist")
    data = DATA["mnist"](tmp_path / "mnist")
    with pytest.raises(DataError, match="t10k-images"):
        data.held_out()


def test_other_folders_are_answered_with_what_was_expected(unpacked: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no MNIST in .*: expected train-images-idx3-ubyte.*looked for it in .*raw"
    ):
        DATA["mnist"](tmp_path)
    with pytest.raises(DataError, match=r"no folder .*nowhere of MNIST"):
        DATA["mnist"](tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is a file: give its folder"):
        DATA["mnist"](unpacked / NAMES[0])
    with pytest.raises(DataError, match="samples must be from 1 to 20, the size of MNIST's training set"):
        DATA["mnist"](unpacked, samples=21)
