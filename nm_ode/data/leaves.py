"""One tensor or array of data: what it may hold, and the tensor that it becomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.arguments import outside_inference, tensor_of
from nm_ode.data.base import DataError

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
_NO_NUMBERS = {
    "O": "holds Python objects",
    "M": "holds dates: give numbers, such as days since the first",
    "m": "holds durations: give numbers, such as seconds",
    "S": "holds text",
    "U": "holds text",
    "T": "holds text",
    "V": "holds records: give one array of numbers for each field",
}


def is_array(leaf: Any) -> bool:
    """Of torch or NumPy, or what NumPy can read as one (pandas, xarray)."""
    return isinstance(leaf, Tensor | np.ndarray) or (hasattr(leaf, "__array__") and hasattr(leaf, "__len__"))


def as_leaf(leaf: Any, place: str) -> Tensor:
    """The tensor of a leaf, samples along its first dimension; it shares the leaf's memory where torch can.

    No graph goes back from it. Unsigned integers of more than 8 bits, which torch can hardly compute with, become
    int64, and NumPy's longdouble float64.

    Args:
        place: of the leaf, for the message.

    Raises:
        DataError: no numbers, a single number, no column, masked values, a sparse or quantised tensor, or integers
            beyond int64.
    """
    tensor = _of_tensor(leaf, place) if isinstance(leaf, Tensor) else tensor_of(numbers(leaf, place))
    if tensor.ndim == 0:
        raise DataError(_no_samples(place, "a single number"))
    if tensor.numel() == 0 and len(tensor):
        raise DataError(f"{place} has no numbers in it: its shape is {tuple(tensor.shape)}")
    return _signed(tensor, place)


def in_dtype(leaf: Tensor, device: torch.device, dtype: torch.dtype, non_blocking: bool = False) -> Tensor:
    """On a device, floating point in `dtype`, complex numbers in its pair; integers and truth values stay."""
    if leaf.is_floating_point():
        kind = dtype
    elif leaf.is_complex():
        kind = dtype.to_complex()
    else:
        leaf, kind = (
            (_signed(leaf, "a batch"), torch.int64) if leaf.dtype in _UNSIGNED else (leaf, leaf.dtype)
        )
    return outside_inference(leaf.detach()).to(device, kind, non_blocking=non_blocking)


def numbers(leaf: Any, place: str) -> np.ndarray:
    """The NumPy array of a leaf that is no tensor, of numbers or truth values.

    Raises:
        DataError: it holds anything else, or masked values.
    """
    if not is_array(leaf):
        what = "a single number" if isinstance(leaf, int | float | complex) else type(leaf).__name__
        raise DataError(_no_samples(place, what))
    masked = int(np.ma.getmaskarray(leaf).sum()) if isinstance(leaf, np.ma.MaskedArray) else 0
    if masked:
        raise DataError(
            f"{place} has {masked} masked values, and a tensor has no mask: fill them, or give the mask as an array "
            "of its own to an objective that reads it"
        )
    array = np.asarray(leaf)
    if array.dtype.kind not in "fiubc":
        what = _NO_NUMBERS.get(array.dtype.kind, f"has dtype {array.dtype}")
        raise DataError(f"{place} {what}; data must be numbers")
    return array


def _of_tensor(leaf: Tensor, place: str) -> Tensor:
    if leaf.is_nested or leaf.layout is not torch.strided:
        raise DataError(f"{place} is a sparse or nested tensor; give a dense one (tensor.to_dense())")
    if leaf.is_meta:
        raise DataError(f"{place} is on the device 'meta' and has no values")
    if leaf.is_quantized:
        raise DataError(f"{place} is quantised; give numbers (tensor.dequantize())")
    return outside_inference(leaf.detach())


def _signed(tensor: Tensor, place: str) -> Tensor:
    if tensor.dtype not in _UNSIGNED:
        return tensor
    if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        raise DataError(
            f"{place} has integers of 2^63 and more, which torch cannot compute with (int64 is its largest)"
        )
    return tensor.to(torch.int64)


def _no_samples(place: str, what: str) -> str:
    return (
        f"{place} is {what}: every leaf must be a tensor or array with the samples along its first dimension; put "
        "constants into the objective"
    )
