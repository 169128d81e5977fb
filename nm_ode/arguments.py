"""What a caller gives, as what the code works with; all else is refused in one sentence."""

from __future__ import annotations

import math
import numbers
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nm_ode.errors import ArgumentError, NmOdeError

LARGEST = 2**63 - 1
"""The largest whole number that torch, NumPy and the store hold."""

_SHOWN = 60  # letters of a value in a sentence


def shown(given: Any) -> str:
    """A value for a sentence: short, and on one line."""
    if isinstance(given, Tensor):
        return f"a tensor of shape {tuple(given.shape)} and {given.dtype}"
    if isinstance(given, np.ndarray | xr.DataArray):
        return f"an array of shape {given.shape} and dtype {given.dtype}"
    if isinstance(given, type):
        return f"the class {given.__name__}"
    if given is not None and not isinstance(
        given, bool | numbers.Number | str | bytes | list | tuple | dict | set
    ):
        kind, home = type(given).__qualname__, type(given).__module__
        return kind if home == "builtins" else f"{kind} of {home}"
    try:
        text = " ".join(repr(given).split())
    except ValueError:  # Python writes out no more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 2]} …"


def as_number(
    name: str,
    given: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    finite: bool = True,
    error: type[NmOdeError] = ArgumentError,
) -> float:
    """A number; NumPy's and tensors without a dimension count.

    Args:
        name: of the argument, for the sentence.
        above, least: it must be larger than the one, and at least the other.
        finite: must it be finite?

    Raises:
        ArgumentError: anything else; or the error that is given.
    """
    found = _plain(given)
    if found is None:
        raise error(f"{name} must be a number; {shown(given)} was given")
    try:
        number = float(found)
    except OverflowError:
        number = math.inf
    if (finite and not math.isfinite(number)) or not (number > above or above == -math.inf) or number < least:
        words = (
            "a positive number"
            if above == 0
            else f"a finite number above {above:g}"
            if above > -math.inf
            else f"a finite number, at least {least:g}"
            if least > -math.inf
            else "a finite number"
        )
        raise error(f"{name} must be {words}; {shown(given)} was given")
    return number


def as_count(
    name: str,
    given: Any,
    *,
    least: int = 1,
    most: int = LARGEST,
    error: type[NmOdeError] = ArgumentError,
) -> int:
    """A whole number from `least` to `most`; NumPy's, tensors without a dimension and 4.0 count.

    Raises:
        ArgumentError: anything else; or the error that is given.
    """
    found = _plain(given)
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if not isinstance(found, int):
        raise error(f"{name} must be a whole number; {shown(given)} was given")
    if found < least:
        raise error(f"{name} must be at least {least}; {shown(found)} was given")
    if found > most:
        raise error(f"{name} must be at most {most}; {shown(found)} was given")
    return found


def as_seed(given: Any) -> int:
    """A seed of torch's generators.

    Raises:
        ArgumentError: no whole number, one below 0, or above 2⁶³ − 1.
    """
    return as_count("seed", given, least=0)


def as_flag(name: str, given: Any) -> bool:
    """True or False, NumPy's too.

    Raises:
        ArgumentError: anything else.
    """
    if not isinstance(given, bool | np.bool_):
        raise ArgumentError(f"{name} must be True or False; {shown(given)} was given")
    return bool(given)


def as_vector(name: str, given: Any, size: int | None = None) -> Tensor:
    """A vector of finite real numbers: a tensor, an array, an xarray variable, or a list of numbers.

    Args:
        size: of the vector; any if None.

    Raises:
        ArgumentError: anything else.
    """
    if isinstance(given, Tensor):
        vector = given.detach()
    else:
        values = given.values if isinstance(given, xr.DataArray) else given
        if not isinstance(values, np.ndarray | list | tuple):
            raise ArgumentError(f"{name} must be a vector of numbers; {shown(given)} was given")
        try:
            array = np.asarray(values)
        except ValueError:  # lists of unequal lengths
            array = np.array(None)
        if array.dtype.kind not in "iufbc":
            raise ArgumentError(f"{name} must be a vector of numbers; {shown(given)} was given")
        if array.dtype.kind == "f" and array.dtype.itemsize not in (2, 4, 8):
            array = array.astype(np.float64)
        vector = torch.from_numpy(np.array(array.astype(array.dtype.newbyteorder("="))))
    if vector.is_complex() or vector.dtype == torch.bool:
        raise ArgumentError(f"{name} must be a vector of real numbers; {shown(given)} was given")
    if vector.ndim != 1 or (size is not None and len(vector) != size):
        wanted = f"({size},)" if size is not None else "one dimension"
        raise ArgumentError(f"{name} has shape {tuple(vector.shape)}; it must have {wanted}")
    if not bool(torch.isfinite(vector).all()):
        raise ArgumentError(f"{name} has entries that are not finite")
    return vector


def as_path(name: str, given: Any) -> Path:
    """A path, or the text of one.

    Raises:
        ArgumentError: anything else.
    """
    if not isinstance(given, str | Path) or "\0" in str(given):
        raise ArgumentError(f"{name} must be a path; {shown(given)} was given")
    return Path(given)


def require_callable(name: str, given: Any, example: str) -> None:
    """Raises ArgumentError unless it is a function or None."""
    if given is not None and (isinstance(given, type) or not callable(given)):
        raise ArgumentError(f"{name} must be a function, such as {example}; {shown(given)} was given")


def require_dataset(name: str, given: Any, example: str) -> None:
    """Raises ArgumentError unless it is an xarray.Dataset."""
    if not isinstance(given, xr.Dataset):
        raise ArgumentError(f"{name} must be a dataset, such as {example} gives; {shown(given)} was given")


def no_optimizer(given: Any) -> str:
    """The sentence for what is given in the place of an optimiser of nm_ode."""
    sentence = f"optimizer must be one of nm_ode, such as nm_ode.SGD(lr=0.1); {shown(given)} was given"
    kind, groups = type(given).__name__, getattr(given, "param_groups", None)
    if not isinstance(given, torch.optim.Optimizer) or not groups or kind not in ("SGD", "Adam", "AdamW"):
        return sentence
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "betas", "eps")
    options = {name: groups[0][name] for name in names if name in groups[0]}
    defaults = given.defaults
    own = [
        f"{name}={value}" for name, value in options.items() if name == "lr" or value != defaults.get(name)
    ]
    own += [
        f"{name}={value}"
        for name, value in options.items()
        if name != "lr" and value == defaults.get(name) and value
    ]
    return f"{sentence}: write nm_ode.{kind}({', '.join(own)})"


def _plain(given: Any) -> int | float | None:
    """Python's own number; None for what is no real number."""
    if isinstance(given, Tensor | np.ndarray | np.generic | xr.DataArray):
        if given.ndim != 0:
            return None
        try:
            given = given.item()
        except RuntimeError:  # a tensor without values
            return None
        if isinstance(given, np.floating):  # of more digits than Python's
            given = float(given)
    if isinstance(given, bool):
        return None
    if isinstance(given, numbers.Integral):
        return int(given)
    if isinstance(given, numbers.Real):
        try:
            return float(given)
        except OverflowError:
            return math.inf
    return None
