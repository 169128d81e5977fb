"""A gradient that is written where it belongs parameter by parameter, as the backward pass gets to them.

`torch.autograd.grad` gives them all at the end: with a flat gradient made of them that is two gradients at a time. Here
it is one, and one parameter's part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

IN_PLACE = 2**20
"""Parameters from which on it is done so: with fewer, what it costs in Python is more than what it saves."""

Take = Callable[[Tensor, Tensor], object]


def write_derivatives(of: Tensor, parameters: Sequence[nn.Parameter], into: Sequence[Tensor]) -> None:
    """By each parameter; zero for those that `of` does not depend on.

    Args:
        into: a tensor of each one's shape, which none of the parameters views.
    """
    met = _backward(of, parameters, into, Tensor.copy_)
    for piece, is_met in zip(into, met, strict=True):
        if not is_met:
            piece.zero_()


def add_derivatives(
    of: Tensor, parameters: Sequence[nn.Parameter], to: Sequence[Tensor], factor: float
) -> None:
    """factor · derivatives are added; arguments as of `write_derivatives`."""
    _backward(of, parameters, to, partial(Tensor.add_, alpha=factor))


def _backward(
    of: Tensor, parameters: Sequence[nn.Parameter], places: Sequence[Tensor], take: Take
) -> list[bool]:
    """Which of the parameters were met? What was in their `grad` is there afterwards."""
    before = [parameter.grad for parameter in parameters]
    met = [False] * len(parameters)

    def hook(i: int, parameter: Tensor) -> None:
        assert parameter.grad is not None
        with torch.no_grad():
            take(places[i], parameter.grad)
        met[i], parameter.grad = True, None

    handles = []
    try:
        for i, parameter in enumerate(parameters):
            parameter.grad = None
            handles.append(parameter.register_post_accumulate_grad_hook(partial(hook, i)))
        torch.autograd.backward(of, inputs=list(parameters))
    finally:
        for handle in handles:
            handle.remove()
        for parameter, grad in zip(parameters, before, strict=True):
            parameter.grad = grad
    return met
