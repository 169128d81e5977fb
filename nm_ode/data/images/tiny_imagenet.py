"""Tiny ImageNet (200 classes, 64×64 pixels) in the folders that its archive unpacks to.

train/<wnid>/images/*.JPEG    the training images, beside them <wnid>_boxes.txt, which names them
val/images/*.JPEG             the held-out images; val/val_annotations.txt has their classes
wnids.txt                     the classes; words.txt has their names
test/                         images without classes, which are not read

Classes are numbered in the sorted order of their wnids, not in that of wnids.txt: so torchvision's ImageFolder numbers
the folders of train/, and with it whatever was trained on them elsewhere.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

from nm_ode.data.base import DataError, DataSet
from nm_ode.data.images.decode import Progress
from nm_ode.data.images.listing import File, Listing, folders_in, images_in, in_turn, located
from nm_ode.data.images.reading import Colours, Reading, with_test
from nm_ode.registry import NotInCases

_EXPECTED = "train/, val/ and wnids.txt"
_COLOURS = Colours(
    mean=(0.4802, 0.4481, 0.3975), std=(0.2770, 0.2691, 0.2821)
)  # of all 100 000 training images


def tiny_imagenet(
    folder: Path,
    samples: int | None = None,
    side: int | None = None,
    cache: Path | None = None,
    augment: bool = False,
    seed: int = 0,
    normalise: bool = True,
    progress: Annotated[Progress | None, NotInCases()] = None,
    workers: Annotated[int | None, NotInCases()] = None,
) -> DataSet:
    """Tiny ImageNet as uint8 (n, 3, side, side), decoded once and kept; its test split is the folder val/.

    Samples come one of each class in turn, those of val/ in the order of val_annotations.txt.

    Args:
        folder: tiny-imagenet-200, or the folder that has it.
        samples: the number of first training samples; all if None.
        side: images are scaled to it; as they are, 64, if None.
        cache: the folder for decoded images; beside `folder` if None, or where the user's caches lie.
        augment: training samples are mirrored and shifted by up to 4 pixels, by `seed`.
        seed: of what is mirrored and shifted.
        normalise: each channel to mean 0 and variance 1 over Tiny ImageNet; else to 0 … 1.
        progress: called with the number of images that are decoded, and of all.
        workers: threads that decode.

    Raises:
        DataError: another folder, or one that is not whole, with what is missing.
    """
    root = located(
        Path(folder),
        "Tiny ImageNet",
        _EXPECTED,
        lambda place: (place / "wnids.txt").is_file() and (place / "train").is_dir(),
        ["tiny-imagenet-200"],
        ["tiny-imagenet-200.zip"],
    )
    wnids = _wnids(root)
    training = in_turn(root, _training(root, wnids)).first(samples, "Tiny ImageNet's training set")
    held_out = _held_out(root, wnids)
    reading = Reading(side, cache, workers, progress)
    data = reading.data_set(training, wnids, "train")
    preparation = _COLOURS.preparation(normalise, augment, seed)
    return with_test(data, preparation, partial(reading.data_set, held_out, wnids, "val", data))


def _wnids(root: Path) -> tuple[str, ...]:
    """The classes, sorted."""
    path = root / "wnids.txt"
    wnids = path.read_text(encoding="utf-8", errors="replace").split()
    twice = [wnid for wnid, times in Counter(wnids).items() if times > 1]
    if twice or not wnids:
        raise DataError(
            f"{path} {f'names the class {twice[0]} twice' if twice else 'is empty'}: unpack it again"
        )
    folders = folders_in(root / "train")
    missing = sorted(set(wnids) - set(folders))
    if missing:
        raise DataError(
            f"{root / 'train'} has {len(wnids) - len(missing)} of the {len(wnids)} classes in wnids.txt, and no folder "
            f"{missing[0]}: unpack the archive again"
        )
    foreign = sorted(set(folders) - set(wnids))
    if foreign:
        raise DataError(f"{root / 'train' / foreign[0]} is no class in {path}: remove it, or name it there")
    return tuple(sorted(wnids))


def _training(root: Path, wnids: tuple[str, ...]) -> list[list[File]]:
    """The files of each class, as many of each as the lists beside them and the other classes have."""
    found = []
    for wnid in wnids:
        folder = root / "train" / wnid
        images = folder / "images"
        found.append(images_in(images if images.is_dir() else folder, root))
        _require_listed(folder / f"{wnid}_boxes.txt", found[-1])
    (usual, _), *_ = Counter(map(len, found)).most_common(1)
    for wnid, files in zip(wnids, found, strict=True):
        if len(files) != max(usual, 1):
            raise DataError(
                f"{root / 'train' / wnid} has {len(files)} images where other classes have {usual}: unpack the archive "
                "again, or read a selection of your own with 'image_folder'"
            )
    return found


def _require_listed(boxes: Path, files: list[File]) -> None:
    """Are all images there that the list beside them names? People who tidy up may have removed it."""
    if not boxes.is_file():
        return
    named = [line.split("\t")[0] for line in boxes.read_text(encoding="utf-8", errors="replace").splitlines()]
    missing = sorted(set(named) - {_base(file) for file in files})
    if missing:
        raise DataError(
            f"{boxes.parent} lacks {len(missing)} of the {len(named)} images that {boxes.name} names, first of all "
            f"{missing[0]}: unpack the archive again"
        )


def _held_out(root: Path, wnids: tuple[str, ...]) -> Listing:
    """The images of val/ with their classes."""
    number = {wnid: label for label, wnid in enumerate(wnids)}
    val, annotations = root / "val", root / "val" / "val_annotations.txt"
    if not annotations.is_file():
        if val.is_dir() and set(folders_in(val)) == set(wnids):  # sorted into classes by their user
            return in_turn(root, _sorted_into_classes(val, root, wnids))
        raise DataError(
            f"no {annotations}, which has the classes of the held-out images, and no folder of images for each class "
            f"in {val}: unpack the archive again"
        )
    if not (val / "images").is_dir():
        raise DataError(
            f"no folder {val / 'images'} with the images that val_annotations.txt names: unpack it again"
        )
    there = {_base(file): file for file in images_in(val / "images", root)}
    files, labels = [], []
    for row, line in enumerate(annotations.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        wnid = rest.split("\t")[0]
        if wnid not in number:
            raise DataError(f"{annotations}, line {row}: {wnid!r} is no class in wnids.txt")
        if name not in there:
            raise DataError(
                f"{val / 'images'} lacks {name}, which val_annotations.txt names: unpack the archive again"
            )
        files.append(there.pop(name))
        labels.append(number[wnid])
    if there or not files:
        without = min(there) if there else "any image"
        raise DataError(f"{annotations} has no class for {without}: unpack the archive again")
    return Listing.of(root, files, labels)


def _sorted_into_classes(val: Path, root: Path, wnids: tuple[str, ...]) -> list[list[File]]:
    return [images_in(val / wnid, root, deep=True) for wnid in wnids]


def _base(file: File) -> str:
    return file.name.rpartition("/")[2]
