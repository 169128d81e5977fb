"""Arguments of a plain meaning in any of the usual kinds: NumPy's numbers and arrays, 0-d tensors, names of dtypes."""

from __future__ import annotations

import math
import operator
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.errors import ArgumentError, NmOdeError


def as_count(
    value: Any, name: str, *, least: int = 1, most: int | None = None, error: type[NmOdeError] = ArgumentError
) -> int:
    """A whole number from `least` to `most`: an int, one of NumPy's, or a 0-d tensor of integers.

    Args:
        name: for the message.
        error: what is raised.

    Raises:
        ArgumentError: another kind (True, 2.5 and "4" are no counts), or out of range.
    """
    try:
        if _is_boolean(value) or getattr(value, "ndim", None):
            raise TypeError
        count = operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        raise error(f"{name} must be a whole number; {said(value)} was given") from None
    if count < least or (most is not None and count > most):
        within = f"at least {least}" if most is None else f"from {least} to {most}"
        raise error(f"{name} must be {within}; {said(count)} was given")
    return count


def as_number(value: Any, name: str, *, error: type[NmOdeError] = ArgumentError) -> float:
    """A finite real number: a float or int, one of NumPy's, or a 0-d tensor.

    Raises:
        ArgumentError: another kind (True and "0.1" are no numbers), or not finite.
    """
    try:
        if _is_boolean(value) or isinstance(value, str | bytes):
            raise TypeError
        if getattr(value, "ndim", 0) or (isinstance(value, Tensor) and value.is_complex()):
            raise TypeError
        if isinstance(value, np.complexfloating) or value is np.ma.masked:
            raise TypeError
        number = float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise error(f"{name} must be a number; {said(value)} was given") from None
    if not math.isfinite(number):
        raise error(f"{name} must be finite; {number} was given")
    return number


def as_vector(
    value: Any, name: str, like: Tensor, *, finite: bool = False, error: type[NmOdeError] = ArgumentError
) -> Tensor:
    """A vector of the shape, dtype and device of `like`, contiguous and without a graph.

    A tensor of those properties is not copied. Others are converted, and so are arrays (NumPy, xarray, pandas) and
    lists of numbers.

    Args:
        finite: refuse values that are not finite (reads all of them).

    Raises:
        ArgumentError: another shape, complex numbers, or what is no vector of numbers.
    """
    tensor = as_real(value, name, error=error)
    if tensor.shape != like.shape:
        raise error(f"{name} has shape {tuple(tensor.shape)}; this problem's theta has {tuple(like.shape)}")
    vector = tensor.to(like).contiguous()
    if finite:
        require_finite(vector, name, error=error)
    return vector


def as_real(value: Any, name: str, *, error: type[NmOdeError] = ArgumentError) -> Tensor:
    """A dense tensor of real numbers without a graph, of any shape: `value` itself, or made of an array or a list.

    Raises:
        ArgumentError: complex numbers, truth values, or no numbers at all.
    """
    tensor = as_tensor(value, name, error=error)
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise error(f"{name} must be a dense tensor with values; {said(value)} was given")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise error(f"{name} must be real numbers; {said(value)} was given")
    return outside_inference(tensor.detach())


def require_finite(tensor: Tensor, name: str, *, error: type[NmOdeError] = ArgumentError) -> None:
    """Raises `error`, with their number, if some values are NaN or infinite."""
    if not all_finite(tensor):
        raise error(f"{name} has {not_finite(tensor)}")


def all_finite(tensor: Tensor) -> bool:
    """Are all values finite? Takes no memory but where they are not, or where their sum overflows."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def not_finite(tensor: Tensor) -> str:
    """How many values are NaN, and how many infinite: "3 values that are NaN (of 40)"."""
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    parts = [(nan, "NaN"), (infinite, "infinite")]
    found = " and ".join(
        f"{n} {'values that are' if n > 1 else 'value that is'} {what}" for n, what in parts if n
    )
    return f"{found} (of {tensor.numel()})"


def as_dtype(dtype: Any, *, error: type[NmOdeError] = ArgumentError) -> torch.dtype:
    """float64 or float32: torch's, NumPy's or by name.

    Raises:
        ArgumentError: no dtype, or a coarser one.
    """
    given = _named_dtype(dtype)
    if given is None:
        raise error(f"dtype must be torch.float64 or torch.float32; {said(dtype)} was given")
    if given in (torch.float64, torch.float32):
        return given
    name = dtype_name(given)
    if given.is_floating_point:
        raise error(
            f"dtype {name} is too coarse: its rounding hides the errors that are to be measured; use float64 (or "
            "float32)"
        )
    raise error(f"dtype must be torch.float64 or torch.float32; {name} was given")


def as_device(device: Any, *, error: type[NmOdeError] = ArgumentError) -> torch.device:
    """A device that is there: torch's, or by name.

    Raises:
        ArgumentError: no device, or not on this machine.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise error(
            f"device must be a torch device such as 'cpu' or 'cuda'; {said(device)} was given"
        ) from None
    if found.type == "meta":
        raise error("device 'meta' has no values: give one that computes, such as 'cpu' or 'cuda'")
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as reason:
        first = first_line(reason).partition(". ")[0]
        raise error(f"device {str(found)!r} cannot be used on this machine ({first})") from None
    return found


def as_tensor(value: Any, name: str, *, error: type[NmOdeError] = ArgumentError) -> Tensor:
    """A tensor of numbers: a tensor as it is, arrays of any library, lists.

    Raises:
        ArgumentError: what is no numbers.
    """
    if isinstance(value, Tensor):
        return value
    refusal = error(f"{name} must be numbers (a tensor, an array, a list); {said(value)} was given")
    if not hasattr(value, "__array__") and not isinstance(value, list | tuple | range):
        raise refusal
    require_unmasked(value, name, error=error)
    if isinstance(value, list | tuple) and any(isinstance(part, Tensor) and part.ndim for part in value):
        raise error(
            f"{name} is a list of tensors; give one tensor (torch.stack, or of a model's parameters "
            "torch.nn.utils.parameters_to_vector)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        raise refusal from None
    if array.dtype.kind not in "fiubc":
        raise refusal
    return tensor_of(array)


def require_unmasked(value: Any, name: str, *, error: type[NmOdeError] = ArgumentError) -> None:
    """Raises `error` for a masked array that masks values: what is under a mask would be taken for a number."""
    masked = int(np.ma.getmaskarray(value).sum()) if isinstance(value, np.ma.MaskedArray) else 0
    if masked:
        raise error(f"{name} has {masked} masked values: fill them, or leave them out")


def tensor_of(array: np.ndarray) -> Tensor:
    """A tensor over an array of numbers, over a copy where torch cannot share it.

    That is so for another byte order, negative strides, memory that is read-only, and `np.longdouble`.
    """
    native = array.dtype.newbyteorder("=")
    if native.kind == "f" and native.itemsize > 8:
        native = np.dtype(np.float64)
    elif native.kind == "c" and native.itemsize > 16:
        native = np.dtype(np.complex128)
    array = array.astype(native, copy=False)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def outside_inference(tensor: Tensor) -> Tensor:
    """The tensor; a copy that autograd takes, if it was made under `torch.inference_mode`."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def first_line(error: BaseException) -> str:
    """What an error says in its first line; its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def dtype_name(dtype: torch.dtype) -> str:
    """ "float64"."""
    return str(dtype).removeprefix("torch.")


def said(value: Any) -> str:
    """What was given, in a few words."""
    if isinstance(value, Tensor | np.ndarray):
        kind = "a tensor" if isinstance(value, Tensor) else "an array"
        layout = (
            f", {value.layout}" if isinstance(value, Tensor) and value.layout is not torch.strided else ""
        )
        return f"{kind} of shape {tuple(value.shape)} and dtype {dtype_name(value.dtype)}{layout}"
    if value is None or isinstance(value, str | bytes | bool | int | float | complex | np.generic):
        try:
            text = repr(value)
        except ValueError:  # Python writes out no more than some thousand digits
            return "a number of thousands of digits"
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name, module = type(value).__name__, type(value).__module__
    return name if module == "builtins" else f"{name} of {module}"


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or (isinstance(value, Tensor) and value.dtype == torch.bool)


def _named_dtype(dtype: Any) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None or isinstance(dtype, bool):
        return None
    if isinstance(dtype, str):
        found = getattr(torch, dtype.removeprefix("torch."), None)
        if isinstance(found, torch.dtype):
            return found
    try:
        return torch.from_numpy(np.empty(0, dtype=np.dtype(dtype))).dtype
    except (TypeError, ValueError):
        return None
