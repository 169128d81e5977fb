"""Ensembles of runs on independent minibatches, which are compared with diffusions in distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor
from torch.func import vmap

from nm_ode.arguments import as_count, as_vector, said
from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem
from nm_ode.loss.given import require_problem
from nm_ode.memory import require_memory
from nm_ode.modes import in_own_modes
from nm_ode.optimizers import Optimizer, describe, require_optimizer
from nm_ode.required import as_seed
from nm_ode.results import EnsembleInfo, annotate, write

_NUMBERS = 2**18  # parameters of the members that step together: their states stay in a CPU's caches


@in_own_modes
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
    """Runs from one start that differ in their batches, drawn with replacement; many members step at once.

    (`train` goes through the data epoch by epoch, whose noise cancels over an epoch: another process.)

    Returns:
        `theta` (member, param), after the last step; `start` (param). `nm_ode.ensemble_info` gives the typed record.

    Raises:
        ArgumentError: an argument of another kind or out of range, a start of another shape, or more members than
            memory holds.
    """
    require_problem(problem)
    require_optimizer(optimizer)
    steps, members, seed = as_count(steps, "steps", least=0), as_count(members, "members"), as_seed(seed)
    batch_size = as_count(batch_size, "batch_size")
    if batch_size > problem.n_samples:
        raise ArgumentError(
            f"batch_size must be from 1 to {problem.n_samples}, the number of samples; {batch_size!r} was given"
        )
    if theta0 is not None:
        theta0 = as_vector(theta0, "theta0", problem.theta0)
    start = start_of_members(problem, theta0, members)
    require_memory(
        members * len(start) * start.itemsize, f"an ensemble of {said(members)} members", "take fewer members"
    )
    draws = _generators(problem.n_samples, (steps, batch_size), members, seed)
    at_once = max(1, _NUMBERS // len(start))
    groups = [draws[i : i + at_once] for i in range(0, members, at_once)]
    ends = [_ends(problem, optimizer, start, steps, batch_size, group) for group in groups]
    info = EnsembleInfo(
        title=describe(optimizer),
        members=members,
        seed=seed,
        time=steps * optimizer.time_per_step,
        layout=problem.layout,
        steps=steps,
        batch_size=batch_size,
        lr=optimizer.lr,
    )
    return ensemble_dataset(torch.cat(ends), info, start=start)


def ensemble_dataset(ends: Tensor, info: EnsembleInfo, **vectors: Tensor) -> xr.Dataset:
    """Where the members of an ensemble end: `theta` (member, param), from shape (M, P); and vectors of shape (P,)."""
    made = xr.Dataset(
        {
            "theta": (("member", "param"), ends.cpu().numpy()),
            **{name: ("param", vector.detach().cpu().numpy()) for name, vector in vectors.items()},
        }
    )
    return annotate(write(made, info))


def start_of_members(problem: Problem, theta0: Tensor | None, members: int) -> Tensor:
    """Where all members start, shape (P,).

    Raises:
        ArgumentError: no members, or another shape.
    """
    if members < 1:
        raise ArgumentError(f"members must be at least 1; {members} was given")
    start = (problem.theta0 if theta0 is None else theta0).detach().to(problem.theta0)
    if start.shape != problem.theta0.shape:
        raise ArgumentError(
            f"theta0 has shape {tuple(start.shape)}; this problem's theta has ({problem.layout.size},)"
        )
    return start


def _ends(
    problem: Problem,
    optimizer: Optimizer,
    start: Tensor,
    steps: int,
    batch_size: int,
    draws: Sequence[torch.Generator],
) -> Tensor:
    """Where members end that step together, shape (M, P)."""
    state = start.expand(len(draws), -1)
    for step in range(steps):
        batches = torch.stack(
            [torch.randint(problem.n_samples, (batch_size,), generator=draw, device="cpu") for draw in draws]
        )
        _, gradients = problem.ensemble_loss_and_grad(state[:, : len(start)], batches)
        if step == 0:
            state = vmap(optimizer.init)(state, gradients).clone()
        state += vmap(optimizer.increment)(state, gradients)
    return state[:, : len(start)]


def _generators(n_samples: int, shape: tuple[int, int], members: int, seed: int) -> list[torch.Generator]:
    """One a member, at their places in one stream: each draws all its batches before the next one begins."""
    stream, made = torch.Generator("cpu").manual_seed(seed), []
    for _ in range(members):
        made.append(torch.Generator("cpu"))
        made[-1].set_state(stream.get_state())
        torch.randint(n_samples, shape, generator=stream, device="cpu")
    return made
