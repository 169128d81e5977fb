"""A user's own arrays in a NumPy .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.arguments import not_finite
from nm_ode.data.base import DataError, DataSet
from nm_ode.data.leaves import as_leaf, numbers
from nm_ode.data.sources import TensorSource
from nm_ode.required import as_path

_EXACT = 2**53  # whole numbers up to here are floating-point numbers too


def npz(path: Path, samples: int | None = None) -> DataSet:
    """Arrays `x` and `y` of a NumPy .npz file; integer y are classes, floating-point y are values.

    Args:
        path: of the file.
        samples: how many of the first; all if None.

    Returns:
        A `DataSet`, x in float64, y in int64 (classes, shape (n,)) or float64 (n, outputs).

    Raises:
        DataError: no such file, not an .npz file, an array missing, or one that holds no finite real numbers, or not as
            many samples as the other; with the file and the array.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from nm_ode.data import npz
        >>> np.savez("own.npz", x=np.zeros((5, 3)), y=np.array([0, 1, 2, 1, 0]))
        >>> data = npz(Path("own.npz"))
        >>> tuple(data.x.shape), data.y.dtype
        ((5, 3), torch.int64)
    """
    arrays = _read(path, ("x", "y"))
    x, y = (_samples(arrays[name], f"{path}: {name}") for name in ("x", "y"))
    if len(x) != len(y) or len(x) == 0:
        raise DataError(f"{path}: {len(x)} inputs and {len(y)} targets; give as many of each, at least one")
    data = DataSet(_inputs(x, f"{path}: x"), _targets(y, f"{path}: y"))
    return data.first(samples, str(path))


def npz_source(path: Path) -> TensorSource:
    """All arrays of a NumPy .npz file under their names, a dict for a batch, each of its own dtype.

    Args:
        path: of the file.

    Returns:
        A `TensorSource`.

    Raises:
        DataError: no such file, not an .npz file, an array that holds no numbers, or lengths that differ.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from nm_ode.data import npz_source
        >>> np.savez("tokens.npz", ids=np.arange(12).reshape(4, 3), mask=np.ones((4, 3), dtype=bool))
        >>> source = npz_source(Path("tokens.npz"))
        >>> len(source), {name: tuple(part.shape) for name, part in source.take(slice(0, 2)).items()}
        (4, {'ids': (2, 3), 'mask': (2, 3)})
    """
    return TensorSource(_read(path), name=str(path))


def _samples(array: NDArray[Any], place: str) -> Tensor:
    """Real, finite numbers, the samples along the first dimension.

    Raises:
        DataError: anything else.
    """
    if array.dtype.kind == "c":
        raise DataError(f"{place} is complex: give real and imaginary parts as columns of their own")
    found = numbers(array, place)
    if found.ndim == 0:
        raise DataError(f"{place} is a single number; give the samples along its first dimension")
    if not found.size and len(found):
        raise DataError(f"{place} has no columns: its shape is {found.shape}")
    leaf = as_leaf(found, place) if found.size else torch.empty(0, dtype=torch.float64)
    if leaf.is_floating_point() and not bool(leaf.isfinite().all()):
        raise DataError(f"{place} has values that are not finite: {not_finite(leaf)}")
    return leaf


def _inputs(x: Tensor, place: str) -> Tensor:
    if not x.is_floating_point() and x.dtype != torch.bool and int(x.abs().max()) > _EXACT:
        raise DataError(
            f"{place} has whole numbers above 2^53, which floating point does not hold: scale them"
        )
    return x.to(torch.float64)


def _targets(y: Tensor, place: str) -> Tensor:
    if y.dtype == torch.bool:
        raise DataError(f"{place} holds truth values: save classes as integers, or values as floating point")
    if y.is_floating_point():
        return y.to(torch.float64).reshape(len(y), -1)
    if y.numel() != len(y):
        raise DataError(
            f"{place} holds whole numbers, which are classes, one a sample, and its shape is {tuple(y.shape)}: save "
            "values as floating point"
        )
    return y.to(torch.int64).reshape(len(y))


def _read(path: Path, names: tuple[str, ...] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of these names; all if None."""
    path = as_path(path, "path", error=DataError)
    if not path.is_file():
        what = "is a folder, not a data file" if path.is_dir() else "is no ordinary file"
        raise DataError(f"{path} {what}" if path.exists() else f"no data file {path}")
    try:
        with path.open("rb") as stream:  # NumPy leaves one open that it cannot read
            return _arrays(np.load(stream), path, names)
    except DataError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is not a NumPy .npz file of plain arrays ({reason})") from None


def _arrays(loaded: Any, path: Path, names: tuple[str, ...] | None) -> dict[str, NDArray[Any]]:
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise DataError(f"{path} holds one array; save x and y together with numpy.savez")
    wanted = loaded.files if names is None else names
    missing = [name for name in wanted if name not in loaded.files]
    if missing:
        there = ", ".join(map(repr, loaded.files[:10])) or "none"
        raise DataError(f"{path} has no array {missing[0]}; it must have 'x' and 'y', and has {there}")
    return {name: _array(loaded, name, path) for name in wanted}


def _array(arrays: Any, name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(arrays[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{path}: {name} holds Python objects, which nm_ode does not load: save an array of numbers"
        ) from None
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: {name} cannot be read, the file is damaged ({reason})") from None
