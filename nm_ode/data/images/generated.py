"""Small folders in the layouts of known data sets, with classes that a network can learn: for smoke runs and tests.

A class is a smooth pattern of colours; each image is that pattern, shifted, brightened and with noise on it. The same
arguments give the same images.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nm_ode.data.images.decode import Pixels, pillow
from nm_ode.registry import Registry

_FILES = 5  # that CIFAR-10 has its training images in
_NOISE = 24.0  # standard deviation, of 255


def tiny_imagenet(
    folder: Path,
    classes: int = 10,
    per_class: int = 20,
    held_out: int = 50,
    side: int = 64,
    seed: int = 0,
) -> Path:
    """As tiny-imagenet-200: wnids.txt in no order, every 13th training image of grey levels, classes of val/ mixed.

    Args:
        per_class: training images of each class.
        held_out: images of val/ in all.

    Returns:
        The folder.
    """
    patterns = Patterns(classes, 3, side, seed)
    wnids = [f"n{1443537 + 7919 * label:08d}" for label in range(classes)]
    for label, wnid in enumerate(wnids):
        images = _made(folder / "train" / wnid / "images")
        boxes = []
        for index in range(per_class):
            name = f"{wnid}_{index}.JPEG"
            _save_jpeg(images / name, patterns.image(label, index), grey=index % 13 == 12)
            boxes.append(f"{name}\t0\t0\t{side - 1}\t{side - 1}\n")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(boxes))
    order = _numbers(seed, "wnids.txt").permutation(classes)
    (folder / "wnids.txt").write_text("".join(f"{wnids[label]}\n" for label in order))
    (folder / "words.txt").write_text("".join(f"{wnid}\tpattern {i}\n" for i, wnid in enumerate(wnids)))
    images, annotations = _made(folder / "val" / "images"), []
    for index, label in enumerate(_mixed(classes, held_out, seed)):
        _save_jpeg(images / f"val_{index}.JPEG", patterns.image(label, per_class + index), grey=False)
        annotations.append(f"val_{index}.JPEG\t{wnids[label]}\t0\t0\t{side - 1}\t{side - 1}\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    return folder


def image_folder(
    folder: Path,
    classes: int = 4,
    per_class: int = 20,
    held_out: int = 20,
    side: int = 32,
    seed: int = 0,
) -> Path:
    """PNG files in train/<class>/ and val/<class>/; `held_out` images of val/ in all."""
    patterns = Patterns(classes, 3, side, seed)
    for label in range(classes):
        images = _made(folder / "train" / f"pattern_{label}")
        for index in range(per_class):
            _save_png(images / f"{index:04d}.png", patterns.image(label, index))
    for index, label in enumerate(_mixed(classes, held_out, seed)):
        images = _made(folder / "val" / f"pattern_{label}")
        _save_png(images / f"{index:04d}.png", patterns.image(label, per_class + index))
    return folder


def cifar10(
    folder: Path,
    per_class: int = 20,
    held_out: int = 50,
    seed: int = 0,
    *,
    binary: bool = False,
) -> Path:
    """As cifar-10-batches-py, or cifar-10-batches-bin."""
    _made(folder)
    patterns = Patterns(10, 3, 32, seed)
    labels = _mixed(10, 10 * per_class, seed)
    files = [f"data_batch_{number}" for number in range(1, _FILES + 1)]
    cut = np.array_split(np.arange(len(labels)), _FILES)
    parts = [(name, [(labels[i], i) for i in which]) for name, which in zip(files, cut, strict=True)]
    of_test = enumerate(_mixed(10, held_out, seed + 1), len(labels))
    parts.append(("test_batch", [(label, index) for index, label in of_test]))
    names = [f"pattern {label}" for label in range(10)]
    for name, samples in parts:
        pixels = np.stack([patterns.image(*sample) for sample in samples]).reshape(len(samples), -1)
        chosen = [int(label) for label, _ in samples]
        if binary:
            rows = np.concatenate([np.array(chosen, np.uint8)[:, None], pixels], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            _save_pickle(folder / name, {b"data": pixels, b"labels": chosen, b"batch_label": name.encode()})
    if binary:
        (folder / "batches.meta.txt").write_text("".join(f"{name}\n" for name in names))
    else:
        _save_pickle(folder / "batches.meta", {b"label_names": [name.encode() for name in names]})
    return folder


def cifar100(
    folder: Path,
    per_class: int = 4,
    held_out: int = 100,
    seed: int = 0,
    *,
    binary: bool = False,
) -> Path:
    """As cifar-100-python, or cifar-100-binary; five classes in turn make a coarse one."""
    _made(folder)
    patterns = Patterns(100, 3, 32, seed)
    labels, of_test = _mixed(100, 100 * per_class, seed), _mixed(100, held_out, seed + 1)
    for name, chosen, first in (("train", labels, 0), ("test", of_test, len(labels))):
        pixels = np.stack([patterns.image(label, first + i) for i, label in enumerate(chosen)])
        pixels = pixels.reshape(len(chosen), -1)
        fine, coarse = np.array(chosen, np.uint8), np.array(chosen, np.uint8) // 5
        if binary:
            rows = np.concatenate([coarse[:, None], fine[:, None], pixels], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            labelled = {b"data": pixels, b"fine_labels": fine.tolist(), b"coarse_labels": coarse.tolist()}
            _save_pickle(folder / name, labelled)
    fine_names, coarse_names = [f"pattern {i}" for i in range(100)], [f"group {i}" for i in range(20)]
    if binary:
        (folder / "fine_label_names.txt").write_text("".join(f"{name}\n" for name in fine_names))
        (folder / "coarse_label_names.txt").write_text("".join(f"{name}\n" for name in coarse_names))
    else:
        names = {b"fine_label_names": fine_names, b"coarse_label_names": coarse_names}
        _save_pickle(folder / "meta", {key: [one.encode() for one in value] for key, value in names.items()})
    return folder


def mnist(
    folder: Path,
    per_class: int = 20,
    held_out: int = 50,
    seed: int = 0,
    *,
    compressed: bool = True,
) -> Path:
    """The four idx files of MNIST, as .gz or unpacked."""
    _made(folder)
    patterns = Patterns(10, 1, 28, seed)
    labels, of_test = _mixed(10, 10 * per_class, seed), _mixed(10, held_out, seed + 1)
    for prefix, chosen, first in (("train", labels, 0), ("t10k", of_test, len(labels))):
        pixels = np.stack([patterns.image(label, first + i)[0] for i, label in enumerate(chosen)])
        for name, array in (("images", pixels), ("labels", np.array(chosen, np.uint8))):
            magic = bytes([0, 0, 8, array.ndim])
            content = magic + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
            path = folder / f"{prefix}-{name}-idx{array.ndim}-ubyte"
            if compressed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, 1, mtime=0))
            else:
                path.write_bytes(content)
    return folder


GENERATED: Registry[Callable[..., Path]] = Registry(
    "generated folder",
    {
        "tiny_imagenet": tiny_imagenet,
        "image_folder": image_folder,
        "cifar10": cifar10,
        "cifar100": cifar100,
        "mnist": mnist,
    },
)
"""By the name of the data set that reads it: functions of the folder, of sizes and a seed, which give the folder."""


class Patterns:
    """Images of classes: image i of a class depends on the seed, the class and i alone."""

    def __init__(self, classes: int, channels: int, side: int, seed: int) -> None:
        self._seed, self._side = seed, side
        self._means = [self._smooth(_numbers(seed, f"class {label}"), channels) for label in range(classes)]

    def image(self, label: int, index: int) -> Pixels:
        """(channels, side, side)."""
        numbers = _numbers(self._seed, f"image {index} of {label}")
        most = max(1, self._side // 16)
        shifted = np.roll(self._means[label], numbers.integers(-most, most + 1, 2), axis=(1, 2))
        noise = numbers.standard_normal(shifted.shape) * _NOISE
        return np.clip(shifted * numbers.uniform(0.8, 1.2) + noise, 0, 255).astype(np.uint8)

    def _smooth(self, numbers: np.random.Generator, channels: int) -> NDArray[np.float64]:
        """A few waves of low frequency, from 40 to 215."""
        place = 2 * np.pi * np.arange(self._side) / self._side
        waves: NDArray[np.float64] = np.zeros((channels, self._side, self._side))
        for across in range(3):
            for down in range(3):
                phase = numbers.uniform(0, 2 * np.pi, (channels, 1, 1))
                strength = numbers.standard_normal((channels, 1, 1))
                waves += strength * np.sin(
                    across * place[None, None, :] + down * place[None, :, None] + phase
                )
        low, high = waves.min(), waves.max()
        scaled: NDArray[np.float64] = 40 + 175 * (waves - low) / (high - low)
        return scaled


def _mixed(classes: int, total: int, seed: int) -> list[int]:
    """So many labels of all classes, as equally as it goes, in a drawn order."""
    labels = np.arange(total) % classes
    return [int(label) for label in _numbers(seed, "labels").permutation(labels)]


def _numbers(seed: int, what: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {what}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save_jpeg(path: Path, pixels: Pixels, *, grey: bool) -> None:
    image = pillow().fromarray(pixels.transpose(1, 2, 0))
    (image.convert("L") if grey else image).save(path, "JPEG", quality=90)


def _save_png(path: Path, pixels: Pixels) -> None:
    pillow().fromarray(pixels.transpose(1, 2, 0)).save(path, "PNG")


def _save_pickle(path: Path, content: dict[bytes, object]) -> None:
    path.write_bytes(b"\x80\x02" + _pickled(content) + b".")


def _pickled(value: object) -> bytes:
    """As Python 2 has it in the real files, with texts of bytes, which Python 3 can read and not write."""
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    if isinstance(value, bytes):
        return b"T" + len(value).to_bytes(4, "little") + value
    if isinstance(value, list):
        return b"](" + b"".join(map(_pickled, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_pickled(key) + _pickled(entry) for key, entry in value.items()) + b"u"
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.uint8
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + _pickled(b"b") + b"tR"
    kind = b"cnumpy\ndtype\n(" + _pickled(b"u1") + b"K\x00K\x01tR(K\x03" + _pickled(b"|")
    kind += b"NNN" + _pickled(-1) + _pickled(-1) + b"K\x00tb"
    shape = b"(" + b"".join(map(_pickled, value.shape)) + b"t"
    return made + b"(K\x01" + shape + kind + b"\x89" + _pickled(value.tobytes()) + b"tb"
