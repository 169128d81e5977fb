"""A torch optimiser as one of nm_ode's, where there is one that takes the same steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch

from nm_ode.errors import ArgumentError
from nm_ode.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, ScalarRMSprop, TorchScalarRMSprop

_OURS: Mapping[type[torch.optim.Optimizer], type[Optimizer]] = {
    torch.optim.SGD: SGD,
    torch.optim.Adam: Adam,
    torch.optim.AdamW: AdamW,
    torch.optim.RMSprop: RMSprop,
    TorchScalarRMSprop: ScalarRMSprop,
}

# How torch loops over tensors changes no step.
_NO_OPTION = ("lr", "foreach", "fused", "capturable", "differentiable")


@dataclass(frozen=True)
class Known:
    """What nm_ode knows of a torch optimiser.

    Attributes:
        optimizer: the same map as a value; None where there is none.
        why_not: then the reason, for a sentence.
        is_sgd: is it torch's own SGD, whose charges have laws group by group?
    """

    optimizer: Optimizer | None
    why_not: str = ""
    is_sgd: bool = False

    @property
    def memory(self) -> Optimizer | None:
        """Whose names the parts of the optimiser's memory have; None: they have torch's."""
        return SGD(lr=1.0, momentum=0.5) if self.optimizer is None and self.is_sgd else self.optimizer


def known_optimizer(optimizer: torch.optim.Optimizer, followed: Collection[torch.Tensor]) -> Known:
    """The same map as a value, unless it is a class of the user's own, or has options that nm_ode has not.

    A group's learning rate may differ from step to step, so groups with other learning rates are no difference here.
    The learning rate is that from which a scheduler starts, as `Optimizer.lr` is before the factors of a schedule.

    Args:
        followed: the parameters that are recorded.
    """
    kind = type(optimizer)
    if kind not in _OURS:
        return Known(None, f"nm_ode does not know the optimiser {kind.__name__}")
    groups = [options_of_steps(optimizer, group) for group in optimizer.param_groups]
    first = groups[0]
    differing = sorted({name for group in groups for name in first if group.get(name) != first[name]})
    if differing:
        return Known(
            None, f"parameter groups differ in {', '.join(differing)}", is_sgd=kind is torch.optim.SGD
        )
    for option in ("maximize", "amsgrad"):
        if first.get(option):
            return Known(None, f"nm_ode does not know the optimiser's option {option!r}")
    if kind is TorchScalarRMSprop:
        mine = {id(one) for group in optimizer.param_groups for one in group["params"] if one.requires_grad}
        if len(groups) > 1 or mine - {id(one) for one in followed}:
            return Known(None, "its second moment is not that of the recorded parameters alone, all of them")
    ours: Any = _OURS[kind]
    options = {field.name: first.get(field.name) for field in fields(ours) if field.name != "lr"}
    try:
        if "betas" in options:  # tensors, to torch
            options["betas"] = tuple(float(beta) for beta in first["betas"])
        return Known(ours(lr=base_lr(optimizer), **options), is_sgd=kind is torch.optim.SGD)
    except (ArgumentError, TypeError) as error:  # a value that torch takes and nm_ode does not
        return Known(None, f"the optimiser has a value that nm_ode does not know: {error}")


def base_lr(optimizer: torch.optim.Optimizer) -> float:
    """From which a scheduler starts; that of now without one, and 1 where it is 0: any will do, as steps have their
    own.
    """
    group = optimizer.param_groups[0]
    return float(group.get("initial_lr", rate_of(group))) or rate_of(group) or 1.0


def options_of_steps(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> dict[str, Any]:
    """What of a group changes a step, but for its learning rate; not what a user or a scheduler keeps there."""
    plain = (int, float, str, bool, tuple, list, type(None))
    return {
        name: group[name]
        for name in optimizer.defaults
        if name not in _NO_OPTION and name in group and isinstance(group[name], plain)
    }


def plain_hyperparameters(group: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and switches of a group, by torch's names."""
    found: dict[str, Any] = {}
    for name, value in group.items():
        if isinstance(value, (int, float, str)):  # in each step: a union, or numbers' own class, takes longer
            found[name] = value
        elif isinstance(value, torch.Tensor):
            if value.numel() == 1:
                found[name] = float(value)
        elif isinstance(value, Real):
            found[name] = float(value)
    return found


def rate_of(group: Mapping[str, Any]) -> float:
    """A group's learning rate; 1 where an optimiser has none, as one that makes up its step by itself."""
    rate = group.get("lr")
    return 1.0 if rate is None else float(rate)
