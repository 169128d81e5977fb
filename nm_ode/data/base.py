"""What the data sets here are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nm_ode.errors import NmOdeError

if TYPE_CHECKING:
    from nm_ode.data.preparation import Preparation
    from nm_ode.data.sources import Source


class DataError(NmOdeError, ValueError):
    """The data cannot be read or do not hold what is asked of them.

    Example:
        >>> from nm_ode.data import digits
        >>> digits(samples=5000)
        Traceback (most recent call last):
            ...
        nm_ode.data.base.DataError: samples must be from 1 to 1797, the size of digits; 5000 was given
    """


class NoSuchSampleError(DataError, IndexError):
    """The index of a sample is out of range."""


@dataclass(frozen=True)
class Image:
    """Shape of square images.

    Args:
        channels: 1 for grey, 3 for colour.
        side: in pixels.

    Example:
        >>> from nm_ode.data import digits
        >>> digits().image
        Image(channels=1, side=8)
    """

    channels: int
    side: int


@dataclass(frozen=True, repr=False)
class DataSet:
    """Inputs x (n, …) and targets y: int64 classes (n,) or float64 values (n, outputs).

    Args:
        x: in memory, or an `np.memmap` of a file that is read a batch at a time.
        y: as many.
        image: where the inputs are images, of which shape; also of flat ones.
        test: samples that are not for training, or a function that reads them.
        preparation: what becomes of uint8 inputs before a model sees them; of the test samples too, which are never
            augmented.
        classes: names of the classes, by number.

    Example:
        >>> from nm_ode.data import digits
        >>> data = digits(samples=100).as_images()
        >>> tuple(data.x.shape), data.y.dtype, data.is_classification
        ((100, 1, 8, 8), torch.int64, True)
    """

    x: Any
    y: Tensor
    image: Image | None = None
    test: Callable[[], DataSet] | DataSet | None = None
    preparation: Preparation | None = None
    classes: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        y = "classes" if self.is_classification else f"values {tuple(self.y.shape[1:])}"
        return f"<DataSet: {len(self.x)} samples, x {tuple(self.x.shape[1:])}, y {y}>"

    def source(self) -> Source:
        """Pairs (x, y), prepared where there is a preparation.

        Raises:
            DataError: images that the preparation is not for.
        """
        from nm_ode.data.preparation import PreparedSource
        from nm_ode.data.sources import source_of

        pairs = source_of((self.x, self.y))
        return pairs if self.preparation is None else PreparedSource(pairs, self.preparation)

    def held_out(self) -> DataSet | None:
        """The test samples, read now if they have not been; None if there are none.

        Raises:
            DataError: they cannot be read.
        """
        return self.test() if callable(self.test) else self.test

    def as_images(self) -> DataSet:
        """x of shape (n, channels, side, side), and `image`; of the test samples too.

        Raises:
            DataError: the inputs are no square images.
        """
        test = self._test_as(DataSet.as_images)
        if self.image is not None:
            shape = (-1, self.image.channels, self.image.side, self.image.side)
            return replace(self, x=self.x.reshape(shape), test=test)
        if self.x.ndim == 4 and self.x.shape[2] == self.x.shape[3]:
            return replace(self, image=Image(self.x.shape[1], self.x.shape[2]), test=test)
        raise DataError(
            f"inputs of shape {tuple(self.x.shape[1:])} are no square images (channels, side, side)"
        )

    def as_vectors(self) -> DataSet:
        """One vector for each sample, where a model takes no images; of images that are prepared, after that."""
        test = self._test_as(DataSet.as_vectors)
        if self.preparation is None:
            return replace(self, x=self.x.reshape(len(self.x), -1), test=test)
        return replace(self, preparation=replace(self.preparation, flat=True), test=test)

    def first(self, samples: int | None, name: str) -> DataSet:
        """The first samples; all if None.

        Args:
            samples: how many.
            name: of the data set, for the message.

        Raises:
            DataError: fewer than one sample, or more than there are.
        """
        if samples is None:
            return self
        if not 1 <= samples <= len(self.x):
            raise DataError(
                f"samples must be from 1 to {len(self.x)}, the size of {name}; {samples} was given"
            )
        return replace(self, x=self.x[:samples], y=self.y[:samples])

    @property
    def is_classification(self) -> bool:
        """Are the targets classes?"""
        return not self.y.is_floating_point()

    def _test_as(self, change: Callable[[DataSet], DataSet]) -> Callable[[], DataSet] | None:
        """The test samples changed, when they are read."""
        return None if self.test is None else partial(_changed, self.test, change)


def _changed(test: Callable[[], DataSet] | DataSet, change: Callable[[DataSet], DataSet]) -> DataSet:
    return change(test() if callable(test) else test)
