"""The gradient that trains: the model's own, by autograd, beside that of its graph.

An exported graph knows the forward pass alone. A custom backward, a hook or a reversed gradient trains by something
else, and of that nothing is proved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from nm_ode.arguments import first_line
from nm_ode.parameters import Layout
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.loss_module import LossModule
from nm_ode.symmetries.traced_loss import TracedLoss

_TORCHS_OWN = ("BackwardHookFunction", "CheckpointFunction")
_SUMS = 4
_LARGE = 2.0**20  # times the loss: a backward that is not linear (a clipped gradient) then shows itself


@dataclass(frozen=True, eq=False)
class OwnGradient:
    """At one point.

    Attributes:
        loss: of the model itself.
        sketches: parameter → a few random sums of its gradient: two gradients with equal ones are equal.
        functions: names of the operations in its graph whose backward is the user's own.
    """

    loss: float
    sketches: dict[str, Tensor]
    functions: tuple[str, ...]

    @property
    def is_finite(self) -> bool:
        """Loss and gradient."""
        return math.isfinite(self.loss) and all(bool(one.isfinite().all()) for one in self.sketches.values())


def own_gradient(
    loss: TracedLoss, theta: Mapping[str, Tensor], tensors: tuple[Tensor, ...], seed: int
) -> OwnGradient:
    """Of the model itself, not of its graph; its buffers stay as they are.

    A parameter's gradient is kept no longer than it takes to sum it up.

    Raises:
        SymmetryError: autograd does not go through the model.
    """
    whole = LossModule(loss.model, loss.objective, loss.batch)
    parameters = {slot.name: loss.model.get_parameter(slot.name) for slot in loss.layout.slots}
    factor = _LARGE if seed == 0 else 1.0
    # In the model itself: what a checkpoint computes again in the backward pass must see the same parameters.
    sketches = {name: torch.zeros(_SUMS, dtype=torch.float64) for name in parameters}

    def sum_up(name: str, parameter: Tensor) -> None:
        if parameter.grad is not None:
            sketches[name] += sketch(name, parameter.grad) / factor
        parameter.grad = None

    sparse = loss.is_single and not loss.hooked
    with _kept(whole, parameters.values()), _sparse_lookups(whole, sparse), torch.random.fork_rng(devices=[]):
        hooks = []
        for name, parameter in parameters.items():
            if theta[name].data_ptr() != parameter.data_ptr():
                parameter.data = theta[name].clone()
            parameter.grad = None
            hooks.append(parameter.register_post_accumulate_grad_hook(partial(sum_up, name)))
        torch.manual_seed(seed)
        try:
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
        finally:
            for hook in hooks:
                hook.remove()
    return OwnGradient(float(made.detach()), sketches, functions)


def sketch(name: str, gradient: Tensor) -> Tensor:
    """A few random sums of a parameter's gradient, each of about its norm; float64."""
    gradient = gradient.detach()
    count, width = (len(gradient), gradient[0].numel()) if gradient.ndim else (1, 1)
    generator = torch.Generator().manual_seed(crc32(name.encode()))
    left, right = (torch.randn(n, _SUMS, dtype=torch.float64, generator=generator) for n in (count, width))
    if gradient.is_sparse:  # of a table, the rows that were looked up
        gradient = gradient.coalesce()
        left, gradient = left[gradient.indices()[0]], gradient.values()
    rows = gradient.reshape(-1, width)
    return ((rows @ right.to(rows.dtype)).double() * left).sum(0)


@contextmanager
def _sparse_lookups(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Gradients of a large model's tables are kept as the rows that were looked up.

    A table that is the head as well has two gradients and their sum at a time, each as large as itself.
    """
    tables = [
        m
        for m in (module.modules() if wanted else ())
        if isinstance(m, nn.Embedding)
        and "weight" in m._parameters
        and not (m.sparse or m.scale_grad_by_freq)
    ]
    try:
        for table in tables:
            table.sparse = True
        yield
    finally:
        for table in tables:
            table.sparse = False


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


def differing(
    layout: Layout,
    own: Mapping[str, Tensor],
    graph: Mapping[str, Tensor],
    scale: Mapping[str, float],
    same: float,
) -> tuple[str, ...]:
    """Parameters whose own gradient is not the graph's, but for rounding.

    Args:
        own, graph: their sketches.
        scale: layer → norm of its gradient.
        same: of that, how much is rounding.
    """
    return tuple(
        slot.name
        for slot in layout.slots
        if not float((own[slot.name] - graph[slot.name]).abs().max()) <= same * scale[slot.layer]
    )


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
