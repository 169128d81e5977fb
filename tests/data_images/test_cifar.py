"""CIFAR in each of its versions: the same images and classes, in the order of the files."""

from __future__ import annotations

import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nm_ode.data import DATA, DataError, DataSet
from nm_ode.data.images.generated import GENERATED

FOLDERS = {
    ("cifar10", False): "cifar-10-batches-py",
    ("cifar10", True): "cifar-10-batches-bin",
    ("cifar100", False): "cifar-100-python",
    ("cifar100", True): "cifar-100-binary",
}
ARCHIVES = {
    "cifar-10-batches-py": "cifar-10-python.tar.gz",
    "cifar-10-batches-bin": "cifar-10-binary.tar.gz",
    "cifar-100-python": "cifar-100-python.tar.gz",
    "cifar-100-binary": "cifar-100-binary.tar.gz",
}
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all versions, and their archives in packed/."""
    root = tmp_path_factory.mktemp("cifar")
    (root / "packed").mkdir()
    for (name, binary), folder in FOLDERS.items():
        sizes = {"per_class": 3 if name == "cifar10" else 1, "held_out": 25}
        GENERATED[name](root / folder, binary=binary, **sizes)
        with tarfile.open(root / "packed" / ARCHIVES[folder], "w:gz") as archive:
            archive.add(root / folder, folder)
    return root


def pixels_of_pickles(paths: list[Path], key: bytes) -> tuple[np.ndarray, list[int]]:
    """As the home page says how to read them."""
    read = [pickle.loads(path.read_bytes(), encoding="bytes") for path in paths]
    pixels = np.concatenate([one[b"data"] for one in read]).reshape(-1, 3, 32, 32)
    return pixels, [label for one in read for label in one[key]]


@pytest.mark.parametrize("binary", [False, True])
def test_cifar10_is_what_its_pickles_have(made: Path, binary: bool) -> None:
    data = DATA["cifar10"](made / FOLDERS["cifar10", binary])
    python = made / "cifar-10-batches-py"
    pixels, labels = pixels_of_pickles([python / name for name in BATCHES], b"labels")
    assert torch.equal(data.x, torch.from_numpy(pixels))
    assert data.y.tolist() == labels
    assert data.y.dtype == torch.int64
    test = data.held_out()
    assert test is not None
    pixels, labels = pixels_of_pickles([python / "test_batch"], b"labels")
    assert torch.equal(test.x, torch.from_numpy(pixels))
    assert test.y.tolist() == labels
    assert data.classes == test.classes == tuple(f"pattern {label}" for label in range(10))


@pytest.mark.parametrize("labels", ["fine", "coarse"])
@pytest.mark.parametrize("binary", [False, True])
def test_cifar100_has_fine_and_coarse_classes(made: Path, binary: bool, labels: str) -> None:
    data = DATA["cifar100"](made / FOLDERS["cifar100", binary], labels=labels)
    python = made / "cifar-100-python"
    pixels, expected = pixels_of_pickles([python / "train"], f"{labels}_labels".encode())
    assert torch.equal(data.x, torch.from_numpy(pixels))
    assert data.y.tolist() == expected
    assert data.classes is not None
    assert data.classes[3] == ("pattern 3" if labels == "fine" else "group 3")
    assert len(data.classes) == (100 if labels == "fine" else 20)


@pytest.mark.parametrize(("name", "binary"), FOLDERS)
def test_archives_are_read_as_they_are(made: Path, name: str, binary: bool, tmp_path: Path) -> None:
    folder = FOLDERS[name, binary]
    unpacked = DATA[name](made / folder)
    archive = tmp_path / ARCHIVES[folder]
    shutil.copy(made / "packed" / archive.name, archive)
    for given in (archive, tmp_path):  # the file, or the folder that has it
        packed = DATA[name](given)
        assert torch.equal(packed.x, unpacked.x)
        assert torch.equal(packed.y, unpacked.y)
        ours, theirs = packed.held_out(), unpacked.held_out()
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours.x, theirs.x)
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_the_folder_above_has_both_data_sets_and_gives_the_one_asked_for(made: Path) -> None:
    assert DATA["cifar10"](made).y.max() == 9
    assert DATA["cifar100"](made).y.max() == 99


def test_samples_are_the_first_and_the_normalisation_is_of_all(made: Path) -> None:
    whole = DATA["cifar10"](made)
    some = DATA["cifar10"](made, samples=7, augment=True, seed=3)
    assert torch.equal(some.x, whole.x[:7])
    assert some.y.tolist() == whole.y[:7].tolist()
    assert some.preparation is not None
    assert whole.preparation is not None
    assert some.preparation.mean == whole.preparation.mean
    mean = whole.x.double().mean(dim=(0, 2, 3)) / 255
    std = whole.x.double().transpose(0, 1).reshape(3, -1).std(dim=1, correction=0) / 255
    assert whole.preparation.mean == pytest.approx(mean.tolist(), rel=1e-13)
    assert whole.preparation.std == pytest.approx(std.tolist(), rel=1e-13)
    assert some.preparation.augment is not None
    assert some.preparation.augment.seed == 3
    assert whole.preparation.augment is None


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def _malicious(folder: Path) -> None:
    content = pickle.loads((folder / "data_batch_2").read_bytes(), encoding="bytes")
    content[b"batch_label"] = Malicious(folder / "was_run")
    (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))


def _changed(name: str, **entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = pickle.loads((folder / name).read_bytes(), encoding="bytes")
        content.update({key.encode(): value for key, value in entries.items()})
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))

    return change


def _cut(name: str, by: int) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        os.truncate(folder / name, (folder / name).stat().st_size - by)

    return cut


ROWS = np.zeros((2, 3072), np.uint8)
NOT_WHOLE: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "py",
        _malicious,
        r"data_batch_2 is a pickle that has more in it than data \(\w+.mkdir\), and nothing of it was",
    ),
    (
        "py",
        lambda folder: (folder / "data_batch_4").unlink(),
        r"cifar-10-batches-py lacks data_batch_4: unpack",
    ),
    ("py", lambda folder: (folder / "test_batch").unlink(), r"cifar-10-batches-py lacks test_batch: unpack"),
    ("py", _cut("data_batch_3", 9), r"data_batch_3 is cut off or no pickle"),
    (
        "py",
        _changed("data_batch_3", data=ROWS),
        r"data_batch_3 has no 'labels', a list with a class for each of its 2",
    ),
    (
        "py",
        _changed("data_batch_3", data=ROWS, labels=[1, 2]),
        r"data_batch_3 has 2 images where data_batch_1 has 6",
    ),
    (
        "py",
        _changed("data_batch_3", data=ROWS[:, 1:]),
        r"data_batch_3 has no 'data', an array of bytes with 3072",
    ),
    (
        "py",
        _changed("data_batch_3", labels=[10] * 6),
        r"data_batch_3 has classes from 10 to 10: expected 0 to 9",
    ),
    ("py", _changed("data_batch_3", labels=["1"] * 6), r"data_batch_3 has no 'labels'"),
    (
        "py",
        _changed("batches.meta", label_names=[b"cat"]),
        r"batches.meta has 1 names, and there are 10 classes",
    ),
    (
        "bin",
        _cut("data_batch_5.bin", 1),
        r"data_batch_5.bin has 18437 bytes, and 3073 are an image with its class",
    ),
    ("bin", _cut("data_batch_5.bin", 3073), r"data_batch_5.bin has 5 images where data_batch_1.bin has 6"),
    (
        "bin",
        lambda folder: (folder / "data_batch_1.bin").write_bytes(b"\xff" * 3073),
        r"classes from 255 to 255",
    ),
]


@pytest.mark.parametrize(("kind", "damage", "sentence"), NOT_WHOLE)
def test_what_is_not_whole_is_refused(
    made: Path, tmp_path: Path, kind: str, damage: Callable[[Path], Any], sentence: str
) -> None:
    folder = tmp_path / f"cifar-10-batches-{kind}"
    shutil.copytree(made / folder.name, folder)
    damage(folder)
    with pytest.raises(DataError, match=sentence) as caught:
        DATA["cifar10"](tmp_path)
    assert "\n" not in str(caught.value)
    assert not (folder / "was_run").exists()


def test_an_archive_that_is_cut_off_is_refused(made: Path, tmp_path: Path) -> None:
    content = (made / "packed" / "cifar-10-python.tar.gz").read_bytes()
    path = tmp_path / "cifar-10-python.tar.gz"
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for part in (content[:middle], content[:-10], flipped, b"<html>not found</html>"):
        path.write_bytes(part)
        for given in (path, tmp_path):
            with pytest.raises(
                DataError, match=r"cifar-10-python.tar.gz is cut off or no .tar.gz .*: download it"
            ):
                DATA["cifar10"](given)


def test_other_folders_are_answered_with_what_was_expected(made: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no CIFAR-10 in .*: expected the files test_batch or test_batch.bin"
    ):
        DATA["cifar10"](tmp_path)
    with pytest.raises(DataError, match=r"no folder or archive .*nowhere of CIFAR-100"):
        DATA["cifar100"](tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cifar-100-python.tar.gz has no file of CIFAR-10 in it"):
        DATA["cifar10"](made / "packed" / "cifar-100-python.tar.gz")
    with pytest.raises(DataError, match=r"no CIFAR-10 in .*cifar-100-python"):
        DATA["cifar10"](made / "cifar-100-python")
    with pytest.raises(DataError, match="labels must be 'fine' or 'coarse'; 'medium' was given"):
        DATA["cifar100"](made, labels="medium")
    with pytest.raises(DataError, match="samples must be from 1 to 30, the size of CIFAR-10's training set"):
        DATA["cifar10"](made, samples=31)


def test_a_folder_without_names_of_classes_has_numbers(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "cifar-10-batches-bin", tmp_path / "data")
    (tmp_path / "data" / "batches.meta.txt").unlink()
    data: DataSet = DATA["cifar10"](tmp_path / "data")
    assert data.classes == tuple("0123456789")
