"""What is observed in every recorded loop, and by whom."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from nm_ode.loss import Problem
from nm_ode.observers import OPEN_END, Charges, Context, Loop, Losses, Norms, Observer, Trajectory
from nm_ode.optimizers import Optimizer
from nm_ode.parameters import Layout
from nm_ode.recorder.groups import Groups
from nm_ode.recorder.rates import ParameterRates


def context_of(
    model: nn.Module,
    layout: Layout,
    optimizer: Optimizer | None,
    problem: Problem | None,
    saved_steps: Collection[int] | None,
    device: torch.device,
    groups: Groups | None,
) -> Context:
    """What observers learn of a loop whose end nobody knows.

    Args:
        groups: of torch's own SGD, where there are several.
    """
    return Context(
        given_problem=problem,
        optimizer=optimizer,
        steps=OPEN_END,
        saved_steps=() if saved_steps is None else saved_steps,
        device=device,
        given_layout=layout,
        loop=Loop(model, groups),
    )


def always_observed(
    layout: Layout, groups: Groups, *, keeps_theta: bool, rates_differ: bool
) -> list[Observer]:
    """Losses and norms; theta where it is kept, and each parameter's learning rate where they may differ."""
    found: list[Observer] = [Losses(), Norms()]
    if keeps_theta:
        found.append(Trajectory())
    if rates_differ:
        found.append(ParameterRates(layout, lambda: groups.rates))
    return found


def symmetries_of(observers: Collection[Observer]) -> dict[str, frozenset[str]]:
    """Those whose charges are observed: name → names of the parameters that it acts on."""
    return {
        symmetry.name: frozenset(symmetry.shapes)
        for observer in observers
        if isinstance(observer, Charges)
        for symmetry in observer.symmetries
    }
