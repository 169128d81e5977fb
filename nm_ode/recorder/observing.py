"""What is observed in every recorded loop, and by whom."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from nm_ode.loss import Problem
from nm_ode.observers import OPEN_END, Context, Loop, Losses, Norms, Observer, Trajectory
from nm_ode.optimizers import Optimizer
from nm_ode.parameters import Layout
from nm_ode.recorder.conditions import Conditions
from nm_ode.recorder.rates import ParameterRates


def context_of(
    model: nn.Module,
    layout: Layout,
    optimizer: Optimizer | None,
    problem: Problem | None,
    saved_steps: Collection[int] | None,
    device: torch.device,
) -> Context:
    """What observers learn of a loop whose end nobody knows."""
    return Context(
        given_problem=problem,
        optimizer=optimizer,
        steps=OPEN_END,
        saved_steps=() if saved_steps is None else saved_steps,
        device=device,
        given_layout=layout,
        loop=Loop(model),
    )


def always_observed(
    layout: Layout, conditions: Conditions, *, keeps_theta: bool, rates_differ: bool
) -> list[Observer]:
    """Losses and norms; theta where it is kept, and each parameter's learning rate where they may differ."""
    found: list[Observer] = [Losses(), Norms()]
    if keeps_theta:
        found.append(Trajectory())
    if rates_differ:
        found.append(ParameterRates(layout, conditions.rates))
    return found
