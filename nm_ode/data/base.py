"""What the data sets here are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from nm_ode.errors import NmOdeError


class DataError(NmOdeError, ValueError):
    """The data cannot be read or do not hold what is asked of them."""


class NoSuchSampleError(DataError, IndexError):
    """The index of a sample is out of range."""


@dataclass(frozen=True)
class Image:
    """Shape of square images."""

    channels: int
    side: int


@dataclass(frozen=True)
class DataSet:
    """Inputs x (n, …) and targets y: int64 classes (n,) or float64 values (n, outputs).

    Where flat inputs are images, `image` says of which shape.
    """

    x: Tensor
    y: Tensor
    image: Image | None = None

    def as_images(self) -> DataSet:
        """x of shape (n, channels, side, side), and `image`.

        Raises:
            DataError: the inputs are no square images.
        """
        if self.image is not None:
            shape = (-1, self.image.channels, self.image.side, self.image.side)
            return replace(self, x=self.x.reshape(shape))
        if self.x.ndim == 4 and self.x.shape[2] == self.x.shape[3]:
            return replace(self, image=Image(self.x.shape[1], self.x.shape[2]))
        raise DataError(
            f"inputs of shape {tuple(self.x.shape[1:])} are no square images (channels, side, side)"
        )

    def first(self, samples: int | None, name: str) -> DataSet:
        """The first samples; all if None.

        Args:
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
        return not self.y.is_floating_point()
