"""CIFAR-10 and CIFAR-100 as their home page has them: the Python or the binary version, unpacked or as .tar.gz."""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nm_ode.arguments import first_line
from nm_ode.data.base import DataError, DataSet
from nm_ode.data.images.decode import Pixels
from nm_ode.data.images.pickles import UnsafePickleError, plain
from nm_ode.data.images.reading import labelled, measured, with_test

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class _Version:
    """One of the ways in which a data set is given.

    Attributes:
        folder: that its archive unpacks to.
        labels: of each image, in the binary version as many bytes in front of it, the one that is meant at `label`; in
            the Python version the key.
        names: the file with the names of the classes; in the Python version the key too.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: tuple[str, ...]
    key: str = ""
    labels: int = 1
    label: int = 0

    @property
    def is_binary(self) -> bool:
        return not self.key


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR10 = (
    _Version(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        _BATCHES,
        "test_batch",
        ("batches.meta", "label_names"),
        key="labels",
    ),
    _Version(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        tuple(f"{name}.bin" for name in _BATCHES),
        "test_batch.bin",
        ("batches.meta.txt",),
    ),
)


def _cifar100(labels: str) -> tuple[_Version, ...]:
    return (
        _Version(
            "cifar-100-python",
            "cifar-100-python.tar.gz",
            ("train",),
            "test",
            ("meta", f"{labels}_label_names"),
            key=f"{labels}_labels",
        ),
        _Version(
            "cifar-100-binary",
            "cifar-100-binary.tar.gz",
            ("train.bin",),
            "test.bin",
            (f"{labels}_label_names.txt",),
            labels=2,
            label=("coarse", "fine").index(labels),
        ),
    )


def cifar10(
    folder: Path,
    samples: int | None = None,
    augment: bool = False,
    seed: int = 0,
    normalise: bool = True,
) -> DataSet:
    """CIFAR-10 as uint8 (n, 3, 32, 32) in the order of its files, with its test batch as the test split.

    Args:
        folder: cifar-10-batches-py, cifar-10-batches-bin, one of their .tar.gz, or the folder that has one of these.
        samples: the number of first training samples; all if None.
        augment: training samples are mirrored and shifted by up to 4 pixels, by `seed`.
        seed: of what is mirrored and shifted.
        normalise: each channel to mean 0 and variance 1 over all training images; else to 0 … 1.

    Raises:
        DataError: another folder, or one that is not whole; a pickle that has more in it than data.
    """
    found = _located(Path(folder), "CIFAR-10", _CIFAR10)
    return _data_set(found, "CIFAR-10", 10, samples, augment, seed, normalise)


def cifar100(
    folder: Path,
    samples: int | None = None,
    labels: Literal["fine", "coarse"] = "fine",
    augment: bool = False,
    seed: int = 0,
    normalise: bool = True,
) -> DataSet:
    """CIFAR-100 as uint8 (n, 3, 32, 32) in the order of its files, with its test images as the test split.

    Args:
        folder: cifar-100-python, cifar-100-binary, one of their .tar.gz, or the folder that has one of these.
        samples: the number of first training samples; all if None.
        labels: 100 fine classes, or 20 coarse ones.
        augment: training samples are mirrored and shifted by up to 4 pixels, by `seed`.
        seed: of what is mirrored and shifted.
        normalise: each channel to mean 0 and variance 1 over all training images; else to 0 … 1.

    Raises:
        DataError: another folder, or one that is not whole; a pickle that has more in it than data.
    """
    if labels not in ("fine", "coarse"):
        raise DataError(f"labels must be 'fine' or 'coarse'; {labels!r} was given")
    found = _located(Path(folder), "CIFAR-100", _cifar100(labels))
    classes = 100 if labels == "fine" else 20
    return _data_set(found, "CIFAR-100", classes, samples, augment, seed, normalise)


@dataclass(frozen=True)
class _Found:
    """A version, and the folder or archive that has it."""

    version: _Version
    place: Path

    def read(self, names: Collection[str]) -> dict[str, bytes]:
        """The content of these files, of those that are there."""
        if self.place.is_dir():
            return {name: (self.place / name).read_bytes() for name in names if (self.place / name).is_file()}
        found = {}
        with _archive(self.place) as members:
            for name, file in members:
                if name in names:
                    found[name] = file.read()
        return found

    def path(self, name: str) -> Path:
        """For messages."""
        return self.place / name


def _located(given: Path, what: str, versions: tuple[_Version, ...]) -> _Found:
    """Unpacked or packed, here or in the folder given.

    Raises:
        DataError: neither.
    """
    if given.is_file():
        with _archive(given) as members:
            for name, _ in members:
                for version in versions:
                    if name in (*version.train, version.test):
                        return _Found(version, given)
        raise DataError(
            f"{given} has no file of {what} in it, such as {versions[0].test} or {versions[1].test}"
        )
    if not given.is_dir():
        raise DataError(f"no folder or archive {given} of {what}")
    for place in (lambda version: given, lambda version: given / version.folder):
        for version in versions:
            if any((place(version) / name).is_file() for name in (*version.train, version.test)):
                return _Found(version, place(version))
    for version in versions:
        if (given / version.archive).is_file():
            return _Found(version, given / version.archive)
    looked = ", ".join(f"{version.folder}, {version.archive}" for version in versions)
    raise DataError(
        f"no {what} in {given}: expected the files {versions[0].test} or {versions[1].test} and so on there, or one of "
        f"{looked} in it"
    )


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """The files of an archive, which are read from front to back and not unpacked.

    Raises:
        DataError: no archive, cut off or damaged.
    """
    try:
        with path.open("rb") as packed:
            is_packed = packed.read(2) == b"\x1f\x8b"
            packed.seek(0)
            stream: Any = gzip.GzipFile(fileobj=packed) if is_packed else packed
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                yield _files(archive, stream)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = first_line(error)
        raise DataError(f"{path} is cut off or no .tar.gz ({reason}): download it again") from None


def _files(archive: tarfile.TarFile, stream: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    for member in archive:
        file = archive.extractfile(member) if member.isreg() else None
        if file is not None:
            yield member.name.rpartition("/")[2], file
    while stream.read(2**20):  # gzip's check sum comes at the end, behind what tar reads
        pass


def _data_set(
    found: _Found, what: str, classes: int, samples: int | None, augment: bool, seed: int, normalise: bool
) -> DataSet:
    version = found.version
    files = found.read([*version.train, version.names[0], version.test])
    for name in (*version.train, version.test):
        if name not in files:
            raise DataError(f"{found.place} lacks {name}: unpack or download {what} again")
    parts = [_part(found, name, files[name], classes) for name in version.train]
    for name, (_, labels) in zip(version.train, parts, strict=True):
        if len(labels) != len(parts[0][1]):
            raise DataError(
                f"{found.path(name)} has {len(labels)} images where {version.train[0]} has {len(parts[0][1])}: unpack "
                f"or download {what} again"
            )
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    names = _names(found, files.get(version.names[0]), classes)
    preparation = measured(pixels).preparation(normalise, augment, seed)
    data = labelled(pixels, labels, names).first(samples, f"{what}'s training set")
    test = partial(_test, found, files[version.test], classes, names)
    return with_test(data, preparation, test)


def _test(found: _Found, content: bytes, classes: int, names: tuple[str, ...]) -> DataSet:
    pixels, labels = _part(found, found.version.test, content, classes)
    return labelled(pixels, labels, names)


def _part(found: _Found, name: str, content: bytes, classes: int) -> tuple[Pixels, Labels]:
    """Images and classes of a file."""
    read = _of_binary if found.version.is_binary else _of_pickle
    pixels, labels = read(found.version, found.path(name), content)
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        has = f"classes from {labels.min()} to {labels.max()}" if len(labels) else "no image"
        raise DataError(f"{found.path(name)} has {has}: expected 0 to {classes - 1}")
    return pixels.reshape(-1, 3, _SIDE, _SIDE), labels


def _of_binary(version: _Version, path: Path, content: bytes) -> tuple[Pixels, Labels]:
    row = version.labels + _PIXELS
    if not content or len(content) % row:
        raise DataError(
            f"{path} has {len(content)} bytes, and {row} are an image with its class: it is cut off or another kind of "
            "file"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    return np.ascontiguousarray(rows[:, version.labels :]), rows[:, version.label].astype(np.int64)


def _of_pickle(version: _Version, path: Path, content: bytes) -> tuple[Pixels, Labels]:
    found = _unpickled(path, content)
    pixels, labels = _entry(found, "data"), _entry(found, version.key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_PIXELS,):
        raise DataError(
            f"{path} has no 'data', an array of bytes with {_PIXELS} columns: it is another kind of file"
        )
    whole = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not whole or len(labels) != len(pixels):
        raise DataError(
            f"{path} has no {version.key!r}, a list with a class for each of its {len(pixels)} images"
        )
    return np.array(pixels), np.array(labels, np.int64)


def _names(found: _Found, content: bytes | None, classes: int) -> tuple[str, ...]:
    """Of the classes; numbers if nobody says."""
    file, *key = found.version.names
    if content is None:
        return tuple(map(str, range(classes)))
    if key:
        named = _entry(_unpickled(found.path(file), content), key[0])
        texts = [
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in named or ()
        ]
    else:
        texts = content.decode("utf-8", "replace").split("\n")
    names = tuple(text.strip() for text in texts if text.strip())
    if len(names) != classes:
        raise DataError(f"{found.path(file)} has {len(names)} names, and there are {classes} classes")
    return names


def _entry(found: Mapping[Any, Any], key: str) -> Any:
    """As Python 2 wrote it, or Python 3."""
    return found.get(key.encode(), found.get(key))


def _unpickled(path: Path, content: bytes) -> dict[Any, Any]:
    try:
        found = plain(content)
    except UnsafePickleError as error:
        raise DataError(
            f"{path} is a pickle that has more in it than data ({error}), and nothing of it was executed: download it "
            "again from where you trust it, or take the binary version"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is cut off or no pickle ({error}): unpack or download it again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} has {type(found).__name__} in it, not a dict: it is another kind of file")
    return found
