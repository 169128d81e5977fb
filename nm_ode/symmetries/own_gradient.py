"""The gradient that trains: the model's own, by autograd, beside that of its graph.

An exported graph knows the forward pass alone. A custom backward, a hook or a reversed gradient trains by something
else, and of that nothing is proved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from nm_ode.arguments import first_line
from nm_ode.parameters import Layout
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.graph import LossModule
from nm_ode.symmetries.layers import faint_scale
from nm_ode.symmetries.traced_loss import TracedLoss

SAME = 1e-6
"""Gradients of a parameter that differ by less, relative to its layer's, are the same but for rounding."""

_TORCHS_OWN = ("BackwardHookFunction", "CheckpointFunction")
_LARGE = 2.0**20  # times the loss: a backward that is not linear (a clipped gradient) then shows itself


@dataclass(frozen=True, eq=False)
class OwnGradient:
    """At one point.

    Attributes:
        loss: of the model itself.
        gradient: shape (P,), of the loss times `factor`, by `factor`.
        functions: names of the operations in its graph whose backward is the user's own.
    """

    loss: float
    gradient: Tensor
    functions: tuple[str, ...]


def own_gradient(loss: TracedLoss, theta: Tensor, tensors: tuple[Tensor, ...], seed: int) -> OwnGradient:
    """Of the model itself, not of its graph; its buffers stay as they are.

    Raises:
        SymmetryError: autograd does not go through the model.
    """
    whole = LossModule(loss.model, loss.objective, loss.batch)
    parameters = {slot.name: loss.model.get_parameter(slot.name) for slot in loss.layout.slots}
    factor = _LARGE if seed == 0 else 1.0
    # In the model itself: what a checkpoint computes again in the backward pass must see the same parameters.
    with _kept(whole, parameters.values()), torch.random.fork_rng(devices=[]):
        for slot, piece in zip(loss.layout.slots, loss.layout.split(theta), strict=True):
            parameters[slot.name].data = piece.clone()
        torch.manual_seed(seed)
        made = whole(*tensors)
        functions = _functions(made)
        try:
            # As training does it, and not by autograd.grad, which some checkpoints refuse.
            made.backward(torch.full_like(made, factor))
        except Exception as error:
            raise SymmetryError(
                f"autograd does not go through {type(loss.model).__name__} ({first_line(error)}), so it has no "
                "gradient of which anything could be proved"
            ) from error
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters.values()]
    return OwnGradient(float(made.detach()), torch.cat([p.reshape(-1) for p in pieces]) / factor, functions)


@contextmanager
def _kept(whole: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Parameters and buffers (running statistics, counters) are afterwards as they were."""
    values = [(parameter, parameter.data) for parameter in parameters]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in whole.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for parameter in whole.parameters():
            parameter.grad = None
        for parameter, value in values:
            parameter.data = value
        for module, name, buffer, value in buffers:
            with torch.no_grad():
                buffer.copy_(value)
            module._buffers[name] = buffer


def differing(layout: Layout, own: Tensor, graph: Tensor) -> tuple[str, ...]:
    """Parameters whose own gradient is not the graph's, but for rounding."""
    scale = faint_scale(layout, graph)
    return tuple(
        slot.name
        for slot in layout.slots
        if not float((own[slot.slice] - graph[slot.slice]).norm()) <= SAME * scale[layout[slot.name].layer]
    )


def same_loss(own: float, graph: float) -> bool:
    """But for rounding."""
    return math.isfinite(own) and abs(own - graph) <= 1e-9 * max(abs(own), 1e-300)


def _functions(made: Tensor) -> tuple[str, ...]:
    """Custom autograd functions in a tensor's graph."""
    found: dict[str, None] = {}
    seen: set[Any] = set()
    waiting: list[Any] = [made.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = type(node).__name__.removesuffix("Backward")
        if isinstance(node, BackwardCFunction) and name not in _TORCHS_OWN:
            found[name] = None
        waiting.extend(following for following, _ in node.next_functions)
    return tuple(found)
