"""Which samples are meant: an index vector, a mask, a slice, or all."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from nm_ode.arguments import as_tensor, said
from nm_ode.data.base import DataError, NoSuchSampleError

Samples: TypeAlias = Tensor | slice | None
"""Which samples: an index vector (or a mask), a slice, or None for all.

Example:
    >>> import torch
    >>> from nm_ode.data import TensorSource
    >>> source = TensorSource({"ids": torch.arange(6)})
    >>> [source.take(samples)["ids"].tolist() for samples in (torch.tensor([4, 0]), slice(0, 2), None)]
    [[4, 0], [0, 1], [0, 1, 2, 3, 4, 5]]
"""


def samples_of(samples: Any, total: int, *, virtual: bool = False) -> Samples:
    """What a source can take: an index vector without a mask, a slice that goes forward, or None.

    Given as such, or as a list, a range, a NumPy array or a mask of all samples.

    Args:
        virtual: indices from `total` on are those of augmentations.

    Raises:
        DataError: anything else; NoSuchSampleError, which is one: an index out of range.
    """
    if samples is None:
        return None
    if isinstance(samples, slice):
        return _forward(samples, total)
    if isinstance(samples, str | bytes | int | type) or not (
        isinstance(samples, Tensor | list | tuple | range) or hasattr(samples, "__array__")
    ):
        raise _no_samples(said(samples))
    if len(samples_shape := getattr(samples, "shape", (0,))) != 1:
        raise _no_samples(f"shape {tuple(samples_shape)}")
    indices = samples if isinstance(samples, Tensor) else _indices(samples)
    if indices.dtype == torch.bool:
        if len(indices) != total:
            raise DataError(f"samples: a mask of {len(indices)} was given for {total} samples")
        return indices.nonzero().squeeze(1)
    if indices.is_floating_point() or indices.is_complex():
        raise _no_samples(said(indices))
    indices = indices.long()
    if len(indices):
        least, most = (int(end) for end in indices.aminmax())
        if least < -total or (most >= total and not virtual):
            wrong = least if least < -total else most
            more = f", and their augmentations from {total} on" * virtual
            raise NoSuchSampleError(
                f"samples: there is no sample {wrong}; there are {total}, from 0 to {total - 1}{more}"
            )
    return indices


def count(samples: Samples, total: int) -> int:
    """How many samples are asked for.

    Raises:
        DataError: as `samples_of`.
    """
    if samples is None:
        return total
    if isinstance(samples, slice):
        return len(range(total)[samples])
    return len(indices_of(samples, total))


def indices_of(samples: Samples, total: int) -> Tensor:
    """An index vector of the samples.

    Raises:
        DataError: as `samples_of`.
    """
    taken = samples_of(samples, total)
    if isinstance(taken, Tensor):
        return taken
    return torch.arange(total, device="cpu")[slice(None) if taken is None else taken]


def _forward(samples: slice, total: int) -> Samples:
    try:
        wanted = range(total)[samples]
    except (TypeError, ValueError) as error:
        raise _no_samples(f"{samples} ({error})") from None
    return samples if wanted.step > 0 else torch.tensor(list(wanted), dtype=torch.int64, device="cpu")


def _indices(samples: Any) -> Tensor:
    found = as_tensor(samples, "samples", error=DataError)
    return found.long() if found.numel() == 0 else found


def _no_samples(what: str) -> DataError:
    return DataError(
        f"samples: {what} was given; give an index vector (a tensor, array or list of whole numbers), a mask of all "
        "samples, a slice, or None"
    )
