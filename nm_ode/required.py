"""Kinds of argument beside numbers and arrays: seeds, flags, paths, functions, datasets; a sentence for all else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from nm_ode.arguments import as_count, as_number, said
from nm_ode.errors import ArgumentError, NmOdeError

_TWINS = {name: name for name in ("SGD", "Adam", "AdamW", "RMSprop")} | {
    "TorchScalarRMSprop": "ScalarRMSprop"
}

LARGEST = 2**63 - 1
"""The largest whole number that torch, NumPy and the store hold."""


def as_positive(value: Any, name: str) -> float:
    """A finite number above 0, of any of the usual kinds.

    Raises:
        ArgumentError: anything else.
    """
    number = as_number(value, name)
    if not number > 0:
        raise ArgumentError(f"{name} must be a positive number; {said(value)} was given")
    return number


def as_seed(value: Any) -> int:
    """A seed of torch's generators, 0 … 2⁶³ − 1.

    Raises:
        ArgumentError: anything else.
    """
    return as_count(value, "seed", least=0, most=LARGEST)


def as_flag(value: Any, name: str) -> bool:
    """True or False, NumPy's too.

    Raises:
        ArgumentError: anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} must be True or False; {said(value)} was given")
    return bool(value)


def as_path(value: Any, name: str, *, error: type[NmOdeError] = ArgumentError) -> Path:
    """A path, or the text of one.

    Args:
        error: what is raised.

    Raises:
        ArgumentError: anything else.
    """
    if not isinstance(value, str | Path):
        raise error(f"{name} must be a path; {said(value)} was given")
    if "\0" in str(value):
        raise error(f"{name} must be a path; {said(str(value))} has a character that no path has")
    return Path(value)


def require_callable(value: Any, name: str, example: str) -> None:
    """Raises ArgumentError unless it is a function, or None."""
    if value is not None and (isinstance(value, type | torch.nn.Module) or not callable(value)):
        raise ArgumentError(f"{name} must be a function, such as {example}; {said(value)} was given")


def require_dataset(value: Any, name: str, whose: str) -> None:
    """Raises ArgumentError unless it is an xarray.Dataset.

    Args:
        whose: what gives such a one: "nm_ode.train".
    """
    if not isinstance(value, xr.Dataset):
        raise ArgumentError(f"{name} must be a dataset, as {whose} gives it; {said(value)} was given")


def no_optimizer(given: Any) -> str:
    """The sentence for what is given in the place of an optimiser of nm_ode; for torch's with what to write instead."""
    sentence = f"optimizer must be one of nm_ode, such as nm_ode.SGD(lr=0.1); {said(given)} was given"
    kind, groups = type(given).__name__, getattr(given, "param_groups", None)
    if not isinstance(given, torch.optim.Optimizer) or not groups or kind not in _TWINS:
        return sentence
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "betas", "alpha", "eps", "centered")
    options = ", ".join(f"{name}={groups[0][name]}" for name in names if groups[0].get(name))
    return f"{sentence}: write nm_ode.{_TWINS[kind]}({options})"
