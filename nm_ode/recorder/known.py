"""A torch optimiser as one of nm_ode's, where there is one that takes the same steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nm_ode.errors import ArgumentError
from nm_ode.optimizers import SGD, Adam, AdamW, Optimizer

_ADAMS: Mapping[type[torch.optim.Optimizer], type[Adam]] = {torch.optim.Adam: Adam, torch.optim.AdamW: AdamW}


def known_optimizer(optimizer: torch.optim.Optimizer) -> Optimizer | None:
    """The same map as a value; None for a class of the user's own, options that nm_ode has not, or groups that differ.

    A group's learning rate may differ from step to step, so that of the first group now is taken, and groups with other
    learning rates are no difference here.
    """
    groups = [
        {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
    ]
    first = groups[0]
    if any(_without_lr(group) != _without_lr(first) for group in groups) or first.get("maximize"):
        return None
    try:
        if type(optimizer) is torch.optim.SGD:
            names = ("momentum", "dampening", "weight_decay", "nesterov")
            return SGD(lr=_number(first["lr"]), **{name: first[name] for name in names})
        kind = _ADAMS.get(type(optimizer))
        if kind is None or first.get("amsgrad"):
            return None
        return kind(
            lr=_number(first["lr"]),
            betas=(_number(first["betas"][0]), _number(first["betas"][1])),
            eps=first["eps"],
            weight_decay=first["weight_decay"],
        )
    except (ArgumentError, TypeError):  # a value that torch takes and nm_ode does not
        return None


def plain_hyperparameters(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Numbers and switches of the first group, by torch's names."""
    first = optimizer.param_groups[0]
    return {
        name: _number(value) if isinstance(value, torch.Tensor) else value
        for name, value in first.items()
        if isinstance(value, int | float | str | torch.Tensor) and name != "params"
    }


def _without_lr(group: Mapping[str, Any]) -> dict[str, Any]:
    # `initial_lr` is a scheduler's; how torch loops over tensors changes no step.
    left_out = ("lr", "initial_lr", "foreach", "fused", "capturable", "differentiable")
    return {name: value for name, value in group.items() if name not in left_out}


def _number(value: Any) -> float:
    return float(value)
