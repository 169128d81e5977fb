"""The caller's modes (`no_grad`, `inference_mode`, autocast) do not reach what nm_ode computes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def own_modes() -> Iterator[None]:
    """Gradients on, inference mode and autocast off."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", *_accelerators()):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def in_own_modes(function: Callable[P, R]) -> Callable[P, R]:
    """A function that gives the same numbers in whatever mode of torch it is called."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if (
            torch.is_grad_enabled()
            and not torch.is_inference_mode_enabled()
            and not torch._C._is_any_autocast_enabled()
        ):
            return function(*args, **kwargs)  # the usual case, at no cost
        with own_modes():
            return function(*args, **kwargs)

    return called


def _accelerators() -> tuple[str, ...]:
    found = torch.accelerator.current_accelerator()
    return () if found is None else (found.type,)
