"""Finding symmetries leaves the process as it was, and does not depend on the caller's modes of torch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch

from nm_ode.loss.randomness import left_as_they_are
from nm_ode.modes import own_modes

P = ParamSpec("P")
R = TypeVar("R")


def alone(function: Callable[P, R]) -> Callable[P, R]:
    """A function that gives the same in any mode, on whatever default device, and moves no random numbers."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with own_modes(), left_as_they_are(), ExitStack() as stack:
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            return function(*args, **kwargs)

    return called
