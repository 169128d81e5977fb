"""From a listing of image files to a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nm_ode.data.base import DataSet, Image
from nm_ode.data.images.cache import cached
from nm_ode.data.images.decode import Decoded, Pixels, Progress, size_of
from nm_ode.data.images.listing import Listing
from nm_ode.data.preparation import Augmentation, Preparation


@dataclass(frozen=True)
class Colours:
    """Mean and standard deviation of each channel over a training set, pixels from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def preparation(self, normalise: bool, pad: int | None, seed: int, *, flip: bool = True) -> Preparation:
        """To these, or to 0 … 1.

        Args:
            pad: of the augmentation; there is none if None.
        """
        augment = None if pad is None else Augmentation(flip, pad, seed)
        if normalise:
            return Preparation(self.mean, self.std, augment)
        return Preparation((0.0,) * len(self.mean), (1.0,) * len(self.std), augment)


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
        n = found.pixels[:, 0].size
        mean = found.sums / n / 255
        variance = (n * found.squares.astype(object) - found.sums.astype(object) ** 2) / n**2
        std = np.sqrt(variance.astype(float)) / 255
        std[std == 0] = 1
        data = labelled(found.pixels, listing.labels, classes)
        return data, Colours(tuple(map(float, mean)), tuple(map(float, std)))

    def _decoded(self, listing: Listing, split: str, like: DataSet | None) -> Decoded:
        size = size_of(listing, self.side)
        if like is not None and like.image is not None:
            size = replace(size, side=like.image.side)
        return cached(listing, size, split, self.cache, workers=self.workers, progress=self.progress)


def labelled(pixels: Pixels, labels: NDArray[np.int64], classes: tuple[str, ...]) -> DataSet:
    """Images and classes as tensors that share the arrays' memory."""
    image = Image(pixels.shape[1], pixels.shape[2])
    return DataSet(torch.from_numpy(pixels), torch.from_numpy(labels), image, classes=classes)


def with_test(data: DataSet, preparation: Preparation, test: Callable[[], DataSet] | None) -> DataSet:
    """Training and test samples prepared alike, the test samples not augmented."""
    plain = replace(preparation, augment=None)
    prepared = None if test is None else partial(_prepared, test, plain)
    return replace(data, preparation=preparation, test=prepared)


def _prepared(test: Callable[[], DataSet], preparation: Preparation) -> DataSet:
    return replace(test(), preparation=preparation)
