"""A folder with a folder of images for each class, as torchvision's ImageFolder reads it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from nm_ode.data.base import DataError, DataSet
from nm_ode.data.images.decode import Progress
from nm_ode.data.images.listing import File, Listing, folders_in, images_in, in_turn
from nm_ode.data.images.reading import Reading, with_test
from nm_ode.registry import NotInCases

_HELD_OUT = ("val", "valid", "validation", "test")


def image_folder(
    folder: Path,
    samples: int | None = None,
    side: int | None = None,
    held_out: str | None = None,
    cache: Path | None = None,
    augment: bool = False,
    seed: int = 0,
    normalise: bool = True,
    progress: Annotated[Progress | None, NotInCases()] = None,
    workers: Annotated[int | None, NotInCases()] = None,
) -> DataSet:
    """Images of <folder>/train/<class>/, or <folder>/<class>/, as uint8 (n, 3, side, side), decoded once and kept.

    Classes are numbered in the sorted order of their folders' names, those of the held-out images as those of the
    training images; hidden folders are none. Samples come one of each class in turn, in the order of their names.

    Args:
        folder: that has train/, or the folders of the classes.
        samples: the number of first training samples; all if None.
        side: the shorter edge of an image is scaled to it and the middle cut out; if None, all images must be squares
            of one size.
        held_out: the folder beside train/ with the test split; if None, the one of val, valid, validation and test.
        cache: the folder for decoded images; beside `folder` if None, or where the user's caches lie.
        augment: training samples are mirrored and shifted by up to 4 pixels, by `seed`.
        seed: of what is mirrored and shifted.
        normalise: each channel to mean 0 and variance 1 over the training samples that are read; else to 0 … 1.
        progress: called with the number of images that are decoded, and of all.
        workers: threads that decode.

    Raises:
        DataError: no such folder, no images, or others than that.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            f"{root} is a file: unpack it, and give the folder"
            if root.exists()
            else f"no folder {root} of images"
        )
    split = "train" if (root / "train").is_dir() else ""
    beside = [name for name in _HELD_OUT if (root / name).is_dir()]
    if beside and not split:
        raise DataError(f"{root} has {beside[0]}/ and no train/, where the training images are looked for")
    classes = _classes(root / split)
    training = in_turn(root, _files(root, split, classes)).first(
        samples, f"the training set in {root / split}"
    )
    test = _held_out(root, split, beside if held_out is None else [held_out], classes)
    reading = Reading(side, cache, workers, progress)
    data, colours = reading.with_colours(training, classes, split or "all")
    preparation = colours.preparation(normalise, augment, seed)
    read = None if test is None else partial(reading.data_set, test[1], classes, test[0], data)
    return with_test(data, preparation, read)


def _classes(folder: Path) -> tuple[str, ...]:
    found = tuple(folders_in(folder))
    if len(found) < 2:
        has = f"has the folder {found[0]} alone" if found else "has no folder in it"
        raise DataError(f"{folder} {has}: expected a folder of images for each class, at least two")
    return found


def _files(root: Path, split: str, classes: tuple[str, ...]) -> list[list[File]]:
    found = [images_in(root / split / name, root, deep=True) for name in classes]
    for name, files in zip(classes, found, strict=True):
        if not files:
            raise DataError(
                f"{root / split / name} has no image in it (of the kinds .jpg, .png and so on): remove the folder, or "
                "unpack its images again"
            )
    return found


def _held_out(
    root: Path, split: str, there: list[str], classes: tuple[str, ...]
) -> tuple[str, Listing] | None:
    """The folder of the test split, and what is in it."""
    if there and not split:
        raise DataError(f"held_out: {there[0]!r} was given, and {root} has no folder train/ beside it")
    if len(there) > 1:
        raise DataError(f"{root} has {' and '.join(there)}: say with `held_out` which one is the test split")
    if not there:
        return None
    folder = root / there[0]
    if not folder.is_dir():
        raise DataError(f"held_out: no folder {folder}")
    own = _classes(folder)
    foreign = sorted(set(own) - set(classes))
    if foreign:
        raise DataError(
            f"{folder / foreign[0]} is no class of the training images: there is no {root / split / foreign[0]}"
        )
    number = {name: label for label, name in enumerate(classes)}
    every: list[list[File]] = [[] for _ in classes]
    for name, files in zip(own, _files(root, there[0], own), strict=True):
        every[number[name]] = files
    return there[0], in_turn(root, every)
