"""Ensembles of runs on independent minibatches, which are compared with diffusions in distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import xarray as xr
from torch import Tensor
from torch.func import vmap

from nm_ode.loss import Problem
from nm_ode.optimizers import Optimizer, describe
from nm_ode.results.schema import annotate, layout_attrs


def sgd_ensemble(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    *,
    batch_size: int,
    members: int,
    seed: int = 0,
    theta0: Tensor | None = None,
) -> xr.Dataset:
    """Runs from one start that differ in their batches, drawn with replacement; all members step at once.

    (`train` goes through the data epoch by epoch, whose noise cancels over an epoch: another process.)

    Returns:
        `theta` (member, param), after the last step.
    """
    start = (problem.theta0 if theta0 is None else theta0).detach()
    n_theta = len(start)
    draws = _generators(problem.n_samples, (steps, batch_size), members, seed)
    state = start.expand(members, -1)
    for step in range(steps):
        batches = torch.stack(
            [torch.randint(problem.n_samples, (batch_size,), generator=draw) for draw in draws]
        )
        _, gradients = problem.ensemble_loss_and_grad(state[:, :n_theta], batches)
        if step == 0:
            state = vmap(optimizer.init)(state, gradients)
        state = state + vmap(optimizer.increment)(state, gradients)
    return ensemble_dataset(
        problem,
        state[:, :n_theta],
        {"optimizer_text": describe(optimizer), "steps": steps, "batch_size": batch_size, "seed": seed},
    )


def ensemble_dataset(problem: Problem, ends: Tensor, attrs: Mapping[str, Any]) -> xr.Dataset:
    """Where the members of an ensemble end: `theta` (member, param), from shape (M, P)."""
    return annotate(
        xr.Dataset(
            {"theta": (("member", "param"), ends.cpu().numpy())},
            attrs={**attrs, **layout_attrs(problem.layout)},
        )
    )


def _generators(n_samples: int, shape: tuple[int, int], members: int, seed: int) -> list[torch.Generator]:
    """One a member, at their places in one stream: each draws all its batches before the next one begins."""
    stream, made = torch.Generator().manual_seed(seed), []
    for _ in range(members):
        made.append(torch.Generator())
        made[-1].set_state(stream.get_state())
        torch.randint(n_samples, shape, generator=stream)
    return made
