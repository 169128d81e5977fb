"""MNIST, and data sets in its format such as Fashion-MNIST, from the four idx files, packed with gzip or not."""

from __future__ import annotations

import gzip
import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from nm_ode.data.base import DataError, DataSet
from nm_ode.data.images.decode import Pixels
from nm_ode.data.images.reading import labelled, measured, with_test

_CLASSES = 10
_DIMENSIONS = {"images": 3, "labels": 1}
_BELOW = ("", "raw", "MNIST/raw")  # the latter are torchvision's


def mnist(folder: Path, samples: int | None = None, normalise: bool = True) -> DataSet:
    """MNIST as uint8 (n, 1, 28, 28) in the order of its files, with its test images (t10k) as the test split.

    Args:
        folder: with train-images-idx3-ubyte, train-labels-idx1-ubyte and the two that begin with t10k, as .gz or
            unpacked, the "-" before idx a "." or not; or with these in raw/ or MNIST/raw/.
        samples: the number of first training samples; all if None.
        normalise: to mean 0 and variance 1 over all training images; else to 0 … 1.

    Raises:
        DataError: another folder, or one that is not whole.
    """
    place = _located(Path(folder))
    training = _paths(place, "train")
    held_out = _paths(place, "t10k")
    whole = _data_set(training)
    preparation = measured(whole.x.numpy()).preparation(normalise)
    return with_test(whole.first(samples, "MNIST's training set"), preparation, partial(_data_set, held_out))


def _located(given: Path) -> Path:
    if not given.is_dir():
        raise DataError(
            f"{given} is a file: give its folder" if given.exists() else f"no folder {given} of MNIST"
        )
    places = [given / below for below in _BELOW]
    for place in places:
        if any(_candidates(place, prefix, kind) for prefix in ("train", "t10k") for kind in _DIMENSIONS):
            return place
    looked = ", ".join(map(str, places))
    raise DataError(
        f"no MNIST in {given}: expected train-images-idx3-ubyte, as .gz or not, and looked for it in {looked}"
    )


def _paths(place: Path, prefix: str) -> tuple[Path, Path]:
    """Images and labels."""
    found = []
    for kind, dimensions in _DIMENSIONS.items():
        candidates = _candidates(place, prefix, kind)
        if not candidates:
            raise DataError(
                f"{place} lacks {prefix}-{kind}-idx{dimensions}-ubyte, as .gz or not: download it again"
            )
        found.append(candidates[0])
    return found[0], found[1]


def _candidates(place: Path, prefix: str, kind: str) -> list[Path]:
    names = [
        f"{prefix}-{kind}{mark}idx{_DIMENSIONS[kind]}-ubyte{end}" for end in ("", ".gz") for mark in "-."
    ]
    return [place / name for name in names if (place / name).is_file()]


def _data_set(paths: tuple[Path, Path]) -> DataSet:
    pixels, labels = _array(paths[0], _DIMENSIONS["images"]), _array(paths[1], _DIMENSIONS["labels"])
    if len(pixels) != len(labels):
        raise DataError(
            f"{paths[0]} has {len(pixels)} images and {paths[1].name} {len(labels)} classes: download them again"
        )
    if pixels.shape[1] != pixels.shape[2]:
        raise DataError(f"{paths[0]} has images of shape {pixels.shape[1:]}, and networks here take squares")
    if labels.max() >= _CLASSES:
        raise DataError(f"{paths[1]} has classes up to {labels.max()}: expected 0 to {_CLASSES - 1}")
    classes = tuple(map(str, range(_CLASSES)))
    return labelled(pixels[:, None], labels.astype(np.int64), classes)


def _array(path: Path, dimensions: int) -> Pixels:
    """The array of bytes of an idx file: 0, 0, 8 (bytes), the number of dimensions, each of them, the bytes."""
    content = _unpacked(path)
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < 4 + 4 * dimensions:
        raise DataError(
            f"{path} is no idx file of {dimensions} dimension{'s'[: dimensions - 1]}: download it again"
        )
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if len(content) - start != math.prod(shape) or 0 in shape:
        raise DataError(
            f"{path} has {len(content) - start} bytes after its head, and its shape {shape} takes {math.prod(shape)}: "
            "download it again"
        )
    return np.frombuffer(bytearray(content[start:]), np.uint8).reshape(shape)


def _unpacked(path: Path) -> bytes:
    """By what is in the file: some programs unpack what they download and leave the name."""
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is cut off or damaged ({error}): download it again") from None
