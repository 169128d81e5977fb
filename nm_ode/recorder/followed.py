"""Which parameters of a loop are recorded, and of which models none can be."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.loss.given import require_problem
from nm_ode.parameters import Layout


def require_module(given: Any) -> nn.Module:
    """The model that a loop trains.

    Raises:
        ArgumentError: no module.
    """
    if isinstance(given, nn.Module):
        return given
    remedy = f": give an instance, {given.__name__}(…)" if isinstance(given, type) else ""
    raise ArgumentError(f"model must be a torch.nn.Module; {said(given)} was given{remedy}")


def process_of(model: nn.Module) -> tuple[int, int]:
    """The number of this process among those that train the model together, and how many they are."""
    while not isinstance(model, nn.parallel.DistributedDataParallel):
        inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return 0, 1
        model = inner
    return torch.distributed.get_rank(model.process_group), torch.distributed.get_world_size(
        model.process_group
    )


def require_optimizer_of_torch(given: Any) -> torch.optim.Optimizer:
    """The optimiser whose steps are recorded: what a wrapper without hooks of its own has inside.

    Raises:
        ArgumentError: no torch optimiser.
    """
    while isinstance(given, torch.optim.Optimizer):
        if hasattr(given, "_optimizer_step_pre_hooks"):
            return given
        given = getattr(given, "optimizer", None)  # accelerate's wrapper, of transformers' Trainer
    remedy = (
        ": one Recorder for each optimiser, of the parameters that it has"
        if isinstance(given, list | tuple | dict)
        else ""
    )
    raise ArgumentError(f"optimizer must be a torch.optim.Optimizer{remedy}; {said(given)} was given")


def followed_parameters(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, follow_frozen: bool
) -> dict[str, nn.Parameter]:
    """Name → parameter, in the model's order: what the optimiser moves.

    Args:
        model: without wrappers.
        follow_frozen: all parameters instead, also those that are frozen or that the optimiser has not got yet.

    Raises:
        ArgumentError: there is none, or what is there cannot be recorded.
    """
    mine = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    if not mine & {id(parameter) for parameter in named.values()}:
        raise ArgumentError(
            f"the optimiser has no parameter of this {said(type(model).__name__)}: give the model that it trains"
        )
    found = {name: p for name, p in named.items() if follow_frozen or (p.requires_grad and id(p) in mine)}
    if not found:
        raise ArgumentError(
            "each parameter that the optimiser has is frozen: unfreeze some first, or give follow_frozen=True"
        )
    _require_plain(found)
    return found


def require_problem_of(problem: Any, layout: Layout) -> None:
    """Raises ArgumentError unless it is None, or a Problem of the parameters that are followed."""
    if problem is not None:
        require_problem(problem)
        if problem.layout != layout:
            raise ArgumentError(
                "the problem has other parameters than those that the optimiser moves: make it of this model, with the "
                "same ones frozen"
            )


def _require_plain(parameters: dict[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        why = ""
        if any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__) or "_flat_param" in name:
            why = (
                "is spread over several processes (FSDP, or a DTensor): a Recorder follows whole parameters, as "
                "DistributedDataParallel has them"
            )
        elif nn.parameter.is_lazy(parameter) or parameter.is_meta:
            why = "has no values yet: let the model see a batch, or load it, before the Recorder is made"
        elif not parameter.is_floating_point():
            why = f"is {parameter.dtype}: a Recorder follows real numbers"
        if why:
            raise ArgumentError(f"the parameter {said(name)} {why}")
    devices = sorted({str(parameter.device) for parameter in parameters.values()})
    if len(devices) > 1:
        raise ArgumentError(
            f"the parameters lie on {' and '.join(devices)}: a Recorder follows those of one device"
        )
