"""A user's own arrays in a NumPy .npz file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nm_ode.data.base import DataError, DataSet
from nm_ode.data.sources import TensorSource


def npz(path: Path, samples: int | None = None) -> DataSet:
    """Arrays `x` and `y` of a NumPy .npz file; integer y are classes, floating-point y are values.

    Raises:
        DataError: no such file, not an .npz file, an array missing, or lengths that differ.
    """
    arrays = _read(path, ("x", "y"))
    x, y = arrays["x"], arrays["y"]
    if len(x) != len(y) or len(x) == 0:
        raise DataError(f"{path}: {len(x)} inputs and {len(y)} targets; give as many of each, at least one")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{path} has values that are not finite")
    is_class = np.issubdtype(y.dtype, np.integer)
    y = y.astype(np.int64) if is_class else y.astype(np.float64).reshape(len(y), -1)
    data = DataSet(torch.from_numpy(x.astype(np.float64)), torch.from_numpy(y))
    return data.first(samples, str(path))


def npz_source(path: Path) -> TensorSource:
    """All arrays of a NumPy .npz file under their names, a dict for a batch, each of its own dtype.

    Raises:
        DataError: no such file, not an .npz file, or lengths that differ.
    """
    return TensorSource(_read(path), name=str(path))


def _read(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays of these names; all if None."""
    if not path.is_file():
        raise DataError(f"no data file {path}")
    try:
        with np.load(path) as arrays:
            return {name: np.asarray(arrays[name]) for name in (arrays.files if names is None else names)}
    except KeyError as error:
        raise DataError(
            f"{path} has no array {error.args[0].split(' ')[0]}; it must have 'x' and 'y'"
        ) from None
    except Exception as error:
        raise DataError(f"{path} is not a NumPy .npz file of plain arrays ({error})") from None
