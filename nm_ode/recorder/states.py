"""A torch optimiser's whole state as one vector, as flows on theta and a memory start from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nm_ode.optimizers import Optimizer
from nm_ode.parameters import Parts
from nm_ode.recorder.hooks import StepHooks


def has_state(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> bool:
    """Has it a memory of one of these parameters, from steps before or from a checkpoint?"""
    return any(
        isinstance(kept, Tensor) and kept.numel()
        for parameter in parameters
        for kept in optimizer.state.get(parameter, {}).values()
    )


def whole_state(known: Optimizer, hooks: StepHooks, gradient: Parts | None, *, warm: bool) -> Tensor | None:
    """The state in the order of `known.state_layout`, shape (its size,); a copy.

    None where the parameters have taken different numbers of steps, which no one vector holds.

    Args:
        gradient: of the first step; None after a step.
        warm: has the optimiser a state before its first step?
    """
    theta = hooks.theta().flat()
    if gradient is not None and not warm:
        return known.init(theta, gradient.flat()).clone()
    parts = [theta]
    for name, size in known.state_layout(len(theta)).parts[1:]:
        if size == len(theta):
            parts.append(hooks.state(known.torch_memory[name]).flat())
        else:
            counts = hooks.counts(known.torch_memory[name])
            if len(set(counts)) != 1:
                return None
            parts.append(theta.new_tensor(counts[:1]))
    return torch.cat(parts)


def memory_of(known: Optimizer | None, hooks: StepHooks, name: str) -> Parts:
    """A part of the optimiser's memory, by nm_ode's name of a known one and else by torch's; zeros at the start.

    Raises:
        KeyError: it has none of this name.
    """
    if known is None:
        return hooks.state(name)
    try:
        return hooks.state(known.torch_memory[name])
    except KeyError:
        if name not in known.state_layout(1).names:
            raise
        return hooks.zeros()  # no gradient yet
