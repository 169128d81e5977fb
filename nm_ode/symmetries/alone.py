"""Finding symmetries leaves the process as it was, and does not depend on the caller's modes of torch."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from nm_ode.modes import own_modes

P = ParamSpec("P")
R = TypeVar("R")


def alone(function: Callable[P, R]) -> Callable[P, R]:
    """A function that gives the same in any mode, on whatever default device, and moves no random numbers."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        states = random.getstate(), np.random.get_state()  # noqa: NPY002 (what a model may draw from)
        try:
            with ExitStack() as stack:
                stack.enter_context(own_modes())
                stack.enter_context(torch.random.fork_rng(devices=[]))
                if torch.get_default_device().type != "cpu":
                    stack.enter_context(torch.device("cpu"))
                return function(*args, **kwargs)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002

    return called
