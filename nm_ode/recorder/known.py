"""A torch optimiser as one of nm_ode's, where there is one that takes the same steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nm_ode.errors import ArgumentError
from nm_ode.optimizers import SGD, Adam, AdamW, Optimizer

_ADAMS: Mapping[type[torch.optim.Optimizer], type[Adam]] = {torch.optim.Adam: Adam, torch.optim.AdamW: AdamW}

# `initial_lr` and what follows are a scheduler's; how torch loops over tensors changes no step.
_NO_OPTION = (
    "params", "param_names", "lr", "initial_lr", "max_lr", "min_lr", "initial_momentum", "max_momentum",
    "base_momentum", "foreach", "fused", "capturable", "differentiable", "swa_lr",
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What nm_ode knows of a torch optimiser.

    Attributes:
        optimizer: the same map as a value; None where there is none.
        why_not: then the reason, for a sentence.
    """

    optimizer: Optimizer | None
    why_not: str = ""


def known_optimizer(optimizer: torch.optim.Optimizer) -> Known:
    """The same map as a value, unless it is a class of the user's own, or has options that nm_ode has not.

    A group's learning rate may differ from step to step, so groups with other learning rates are no difference here.
    The learning rate is that from which a scheduler starts, as `Optimizer.lr` is before the factors of a schedule.
    """
    kind = type(optimizer)
    if kind is not torch.optim.SGD and kind not in _ADAMS:
        return Known(None, f"nm_ode does not know the optimiser {kind.__name__}")
    groups = [plain_options(group) for group in optimizer.param_groups]
    first = groups[0]
    differing = sorted({name for group in groups for name in first if group.get(name) != first[name]})
    if differing:
        return Known(None, f"parameter groups differ in {', '.join(differing)}")
    for option in ("maximize", "amsgrad"):
        if first.get(option):
            return Known(None, f"nm_ode does not know the optimiser's option {option!r}")
    lr = base_lr(optimizer)
    try:
        if kind is torch.optim.SGD:
            names = ("momentum", "dampening", "weight_decay", "nesterov")
            return Known(SGD(lr=lr, **{name: first[name] for name in names}))
        return Known(
            _ADAMS[kind](
                lr=lr,
                betas=(float(first["betas"][0]), float(first["betas"][1])),
                eps=first["eps"],
                weight_decay=first["weight_decay"],
            )
        )
    except (ArgumentError, TypeError) as error:  # a value that torch takes and nm_ode does not
        return Known(None, f"the optimiser has a value that nm_ode does not know: {error}")


def base_lr(optimizer: torch.optim.Optimizer) -> float:
    """From which a scheduler starts; that of now without one, and 1 where it is 0: any will do, as steps have their
    own.
    """
    group = optimizer.param_groups[0]
    return float(group.get("initial_lr", group["lr"])) or float(group["lr"]) or 1.0


def plain_options(group: Mapping[str, Any]) -> dict[str, Any]:
    """What of a parameter group changes a step, but for its learning rate."""
    plain = (int, float, str, bool, tuple, list, type(None))
    return {
        name: value for name, value in group.items() if name not in _NO_OPTION and isinstance(value, plain)
    }


def plain_hyperparameters(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Numbers and switches of the first group, by torch's names."""
    first = optimizer.param_groups[0]
    return {
        name: float(value) if isinstance(value, torch.Tensor) else value
        for name, value in first.items()
        if isinstance(value, int | float | str | torch.Tensor) and name != "params"
    }
