"""scikit-learn's digits and diabetes, and a user's own arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nm_ode.errors import NmOdeError


class DataError(NmOdeError, ValueError):
    """The data cannot be read or do not hold what is asked of them."""


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

    @property
    def is_classification(self) -> bool:
        return not self.y.is_floating_point()


def digits(samples: int | None = None) -> DataSet:
    """scikit-learn's 8×8 digits in the order of the file, pixels divided by 16: x (n, 64), y (n,)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return _first(
        DataSet(torch.from_numpy(x / 16.0), torch.from_numpy(y.astype(np.int64)), Image(1, 8)),
        samples,
        "digits",
    )


def diabetes(samples: int | None = None) -> DataSet:
    """scikit-learn's diabetes, inputs and target standardised: x (n, 10), y (n, 1)."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    x, y = ((part - part.mean(axis=0)) / part.std(axis=0) for part in (x, y[:, None]))
    return _first(DataSet(torch.from_numpy(x), torch.from_numpy(y)), samples, "diabetes")


def npz(path: Path, samples: int | None = None) -> DataSet:
    """Arrays `x` and `y` of a NumPy .npz file; integer y are classes, floating-point y are values.

    Raises:
        DataError: no such file, not an .npz file, an array missing, or lengths that differ.
    """
    if not path.is_file():
        raise DataError(f"no data file {path}")
    try:
        with np.load(path) as arrays:
            x, y = (np.asarray(arrays[name]) for name in ("x", "y"))
    except KeyError as error:
        raise DataError(
            f"{path} has no array {error.args[0].split(' ')[0]}; it must have 'x' and 'y'"
        ) from None
    except Exception as error:
        raise DataError(f"{path} is not a NumPy .npz file of plain arrays ({error})") from None
    if len(x) != len(y) or len(x) == 0:
        raise DataError(f"{path}: {len(x)} inputs and {len(y)} targets; give as many of each, at least one")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{path} has values that are not finite")
    is_class = np.issubdtype(y.dtype, np.integer)
    y = y.astype(np.int64) if is_class else y.astype(np.float64).reshape(len(y), -1)
    return _first(DataSet(torch.from_numpy(x.astype(np.float64)), torch.from_numpy(y)), samples, str(path))


def _first(data: DataSet, samples: int | None, name: str) -> DataSet:
    if samples is None:
        return data
    if not 1 <= samples <= len(data.x):
        raise DataError(f"samples must be from 1 to {len(data.x)}, the size of {name}; {samples} was given")
    return replace(data, x=data.x[:samples], y=data.y[:samples])
