"""From a listing of image files to a data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nm_ode.data.base import DataSet, Image
from nm_ode.data.images.cache import cached
from nm_ode.data.images.decode import Decoded, Pixels, Progress, moments, size_of
from nm_ode.data.images.listing import Listing
from nm_ode.data.preparation import Augmentation, Preparation
from nm_ode.memory import available

_PAD = 4  # pixels by which images are shifted at most


@dataclass(frozen=True)
class Colours:
    """Mean and standard deviation of each channel over a training set, pixels from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, n: int, sums: NDArray[np.int64], squares: NDArray[np.int64]) -> Colours:
        """From sums over the n pixels of each channel, exactly; std is 1 for a channel that is constant."""
        variance = [(n * int(q) - int(s) ** 2) / n**2 for s, q in zip(sums, squares, strict=True)]
        return cls(tuple(int(s) / n / 255 for s in sums), tuple(math.sqrt(v) / 255 or 1.0 for v in variance))

    def preparation(self, normalise: bool, augment: bool = False, seed: int = 0) -> Preparation:
        """To these, or to 0 … 1."""
        augmentation = Augmentation(pad=_PAD, seed=seed) if augment else None
        if normalise:
            return Preparation(self.mean, self.std, augmentation)
        return Preparation((0.0,) * len(self.mean), (1.0,) * len(self.std), augmentation)


@dataclass(frozen=True)
class Reading:
    """How image files are read: as the options of a data set say.

    Attributes:
        side: None for that of the images.
    """

    side: int | None
    cache: Path | None
    workers: int | None
    progress: Progress | None

    def data_set(
        self, listing: Listing, classes: tuple[str, ...], split: str, like: DataSet | None = None
    ) -> DataSet:
        """The images of a listing with their classes.

        Args:
            split: which part of the data, for the name of the cache.
            like: a data set whose images have the size that is wanted.
        """
        return labelled(self._decoded(listing, split, like).pixels, listing.labels, classes)

    def with_colours(self, listing: Listing, classes: tuple[str, ...], split: str) -> tuple[DataSet, Colours]:
        """The images, and mean and standard deviation of their channels; 1 for a channel that is constant."""
        found = self._decoded(listing, split, None)
        data = labelled(found.pixels, listing.labels, classes)
        return data, Colours.of(found.pixels[:, 0].size, found.sums, found.squares)

    def _decoded(self, listing: Listing, split: str, like: DataSet | None) -> Decoded:
        size = size_of(listing, self.side)
        if like is not None and like.image is not None:
            size = replace(size, side=like.image.side)
        return cached(listing, size, split, self.cache, workers=self.workers, progress=self.progress)


def labelled(pixels: Pixels, labels: NDArray[np.int64], classes: tuple[str, ...]) -> DataSet:
    """Images and classes as tensors that share the arrays' memory; a file larger than memory stays one."""
    free = available()
    stays = isinstance(pixels, np.memmap) and free is not None and pixels.nbytes > free // 2
    x = pixels if stays else torch.from_numpy(pixels)
    return DataSet(x, torch.from_numpy(labels), Image(pixels.shape[1], pixels.shape[2]), classes=classes)


def measured(pixels: Pixels) -> Colours:
    """Of all pixels of images."""
    sums, squares = moments(pixels)
    return Colours.of(pixels[:, 0].size, sums, squares)


def with_test(data: DataSet, preparation: Preparation, test: Callable[[], DataSet] | None) -> DataSet:
    """Training and test samples prepared alike, the test samples not augmented."""
    prepared = None if test is None else partial(_prepared, test, preparation.plain)
    return replace(data, preparation=preparation, test=prepared)


def _prepared(test: Callable[[], DataSet], preparation: Preparation) -> DataSet:
    return replace(test(), preparation=preparation)
