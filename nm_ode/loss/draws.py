"""What is drawn while code runs, where no generator shows it."""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_SEED = random.Random.seed.__code__


class Numbers(TorchDispatchMode):
    """Keeps what torch's random operations give, whichever generator they draw from.

    Attributes:
        seen: one number for each, which another draw would change.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[float] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags and _rate(func, args, kwargs or {}) != 0:
            first = made[0] if isinstance(made, tuple | list) and made else made
            if isinstance(first, Tensor) and first.layout is torch.strided and not first.is_meta:
                self.seen.append(_number(first))
        return made

    def same_as(self, others: Numbers) -> bool:
        """Did another run draw the same?"""
        return len(self.seen) == len(others.seen) and all(
            math.isclose(one, other, rel_tol=1e-5) or (one != one and other != other)
            for one, other in zip(self.seen, others.seen, strict=True)
        )


@contextmanager
def entropy() -> Iterator[list[str]]:
    """What takes the operating system's random numbers: `os.urandom`, and generators made without a seed.

    Nothing is seen where another profiler is at work.
    """
    found: list[str] = []

    def profile(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function is os.urandom:
            found.append("os.urandom")
        elif event == "call" and frame.f_code is _SEED and frame.f_locals.get("a") is None:
            found.append("random.Random")

    free = sys.getprofile() is None
    if free:
        sys.setprofile(profile)
    try:
        yield found
    finally:
        if free:
            sys.setprofile(None)


def _rate(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """At which attention drops units; None of all else."""
    for argument, given in zip_longest(func._schema.arguments, args):
        if argument is not None and argument.name == "dropout_p":
            return kwargs.get("dropout_p", argument.default_value if given is None else given)
    return None


def _number(tensor: Tensor) -> float:
    values = tensor.detach().reshape(-1)
    values = values.abs() if values.is_complex() else values
    weights = torch.linspace(1.0, 2.0, values.numel(), dtype=torch.float64, device=values.device)
    return float(values.double() @ weights)
