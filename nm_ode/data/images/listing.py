"""Which image files a folder has, of which class, in which order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nm_ode.arguments import as_count
from nm_ode.data.base import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's


@dataclass(frozen=True)
class File:
    """An image file as the folder lists it.

    Attributes:
        name: its path below the folder of the data, with "/".
        time: of its last change, in nanoseconds.
    """

    name: str
    size: int
    time: int


@dataclass(frozen=True)
class Listing:
    """Image files with their classes, in the order of the samples."""

    folder: Path
    files: tuple[File, ...]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, folder: Path, files: Sequence[File], labels: Sequence[int]) -> Listing:
        """Files and their classes in order."""
        return cls(folder, tuple(files), np.array(labels, np.int64))

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        """Of a sample's file."""
        return self.folder / self.files[index].name

    def first(self, samples: int | None, what: str) -> Listing:
        """The first samples; all if None.

        Raises:
            DataError: fewer than one, or more than there are.
        """
        if samples is None:
            return self
        try:
            count = as_count(samples, "samples", most=len(self), error=DataError)
        except DataError:
            raise DataError(
                f"samples must be from 1 to {len(self)}, the size of {what}; {samples} was given"
            ) from None
        return replace(self, files=self.files[:count], labels=self.labels[:count])


def in_turn(folder: Path, classes: Sequence[Sequence[File]]) -> Listing:
    """One image of each class in turn, so that the first few samples are of all classes, and fewer begin more.

    Args:
        classes: the files of each, in order.
    """
    placed = sorted((place, label) for label, files in enumerate(classes) for place in range(len(files)))
    files = [classes[label][place] for place, label in placed]
    return Listing.of(folder, files, [label for _, label in placed])


def images_in(folder: Path, below: Path, *, deep: bool = False) -> list[File]:
    """The image files of a folder in the order of their names; hidden ones do not count.

    Args:
        below: the folder of the data, from which names count.
        deep: with those of its folders, as torchvision walks through them.

    Raises:
        DataError: an empty file, or a folder that cannot be read.
    """
    found = []
    for place, entries in sorted(_listed(folder, deep), key=lambda listed: str(listed[0])):
        prefix = place.relative_to(below).as_posix()
        images = [entry for entry in entries if entry.name.lower().endswith(EXTENSIONS)]
        for entry in sorted(images, key=lambda entry: entry.name):
            if not entry.is_file():
                continue
            status = entry.stat()
            if status.st_size == 0:
                raise DataError(f"{place / entry.name} is empty: unpack or download the data again")
            found.append(File(f"{prefix}/{entry.name}", status.st_size, status.st_mtime_ns))
    return found


def folders_in(folder: Path) -> list[str]:
    """Names of the folders of a folder, sorted; hidden ones do not count."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def located(
    given: Path,
    what: str,
    expected: str,
    here: Callable[[Path], bool],
    names: Iterable[str],
    archives: Iterable[str],
) -> Path:
    """The folder given, or one in it, that has the data.

    Args:
        what: the data set, and `expected`, what its folder has, for the message.
        here: has a folder the data?
        names: that the folder of the data has where it was unpacked.
        archives: that it is unpacked from.

    Raises:
        DataError: there is none.
    """
    places = [given, *(given / name for name in names)]
    for place in places:
        if here(place):
            return place
    looked = " and ".join(map(str, places))
    if not given.exists():
        raise DataError(f"no folder {given}; {what} is a folder with {expected}")
    packed = [given] if given.is_file() else [given / name for name in archives if (given / name).is_file()]
    if packed:
        raise DataError(f"{packed[0]} is a file: unpack it, and give the folder with {expected}")
    raise DataError(f"no {what} in {given}: expected {expected}, and looked for them in {looked}")


def _listed(folder: Path, deep: bool) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """A folder with its entries, and those in it."""
    entries = _entries(folder)
    yield folder, entries
    for entry in entries if deep else ():
        if entry.is_dir():
            yield from _listed(folder / entry.name, deep)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None
