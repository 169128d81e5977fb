"""Ensembles of runs on independent minibatches, which are compared with diffusions in distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nm_ode.arguments import as_count, as_vector, said
from nm_ode.data.batches import drawn_samples
from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem
from nm_ode.loss.given import require_one_loss
from nm_ode.memory import require_memory
from nm_ode.modes import in_own_modes
from nm_ode.optimizers import Optimizer, describe, require_optimizer
from nm_ode.optimizers.rows import Rows
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
    See docs/theory.md §4.8 (iii).

    (`train` goes through the data epoch by epoch, whose noise cancels over an epoch: another process.)

    Args:
        problem: whose loss.
        optimizer: takes the steps; at rest at first.
        steps: number of updates.
        batch_size: samples in a minibatch.
        members: number of runs, M.
        seed: of the batches; each member has its own.
        theta0: where all start, shape (P,); the problem's own start if None.

    Returns:
        `theta` (member, param), after the last step; `start` (param). `nm_ode.ensemble_info` gives the typed record.

    Raises:
        ArgumentError: an argument of another kind, members, steps or batch size out of range, a start of another shape,
            or more members than memory holds.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> runs = nm_ode.sgd_ensemble(problem, nm_ode.SGD(lr=0.05), steps=20, batch_size=16, members=8)
        >>> dict(runs.theta.sizes), nm_ode.ensemble_info(runs).time
        ({'member': 8, 'param': 11}, 1.0)
    """
    require_one_loss(problem)
    require_optimizer(optimizer)
    steps, seed = as_count(steps, "steps", least=0), as_seed(seed)
    given = batch_size
    batch_size = as_count(given, "batch_size")
    if batch_size > problem.n_samples:
        raise ArgumentError(
            f"batch_size must be from 1 to {problem.n_samples}, the number of samples; {said(given)} was given"
        )
    start = start_of_members(problem, theta0, members)
    members = as_count(members, "members")

    augmented = problem.augmentation is not None

    def draw(stream: torch.Generator) -> Tensor:
        return drawn_samples(problem.n_samples, batch_size, stream, augmented=augmented)

    def draw_all(stream: torch.Generator) -> None:
        for _ in range(steps):
            draw(stream)

    groups = groups_of_members(members, len(start), seed, draw_all)
    ends = [_ends(problem, optimizer, start, steps, draw, group) for group in groups]
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
        ArgumentError: no members, more than memory holds, or another shape.
    """
    count = as_count(members, "members")
    start = problem.theta0.detach() if theta0 is None else as_vector(theta0, "theta0", problem.theta0)
    require_memory(
        count * len(start) * start.itemsize, f"an ensemble of {said(count)} members", "take fewer members"
    )
    return start


def _ends(
    problem: Problem,
    optimizer: Optimizer,
    start: Tensor,
    steps: int,
    draw: Callable[[torch.Generator], Tensor],
    streams: Sequence[torch.Generator],
) -> Tensor:
    """Where members end that step together, shape (M, P)."""
    count = len(streams)
    moving, rates = Rows([optimizer] * count, start.expand(count, -1)), np.full(count, optimizer.lr)
    for _ in range(steps):
        batches = torch.stack([draw(stream) for stream in streams])
        _, gradients = problem.ensemble_loss_and_grad(moving.theta, batches)
        moving.step(gradients, rates)
    return moving.theta


def groups_of_members(
    members: int, size: int, seed: int, draw_all: Callable[[torch.Generator], None]
) -> list[list[torch.Generator]]:
    """Members that step together, each by its generator, at their places in one stream: one draws all before the next.

    Args:
        size: P, numbers of a member's state.
        draw_all: draws what one member draws.
    """
    stream, made = torch.Generator("cpu").manual_seed(seed), []
    for _ in range(members):
        made.append(torch.Generator("cpu"))
        made[-1].set_state(stream.get_state())
        draw_all(stream)
    at_once = max(1, _NUMBERS // size)
    return [made[i : i + at_once] for i in range(0, members, at_once)]
