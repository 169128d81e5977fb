"""The discrete runs of many members: each step is taken by all of them at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nm_ode.data.batches import member_batches
from nm_ode.loss import RandomProblem, VectorisedWarning
from nm_ode.memory import require_memory
from nm_ode.observers import Observer, Recording, sketch_in_place_of_theta
from nm_ode.optimizers.rows import Rows
from nm_ode.planned import PlannedRun
from nm_ode.results.checkpoints import Checkpoint
from nm_ode.resuming import KeptTraining
from nm_ode.together.fates import Fates
from nm_ode.together.gathered import of_recording
from nm_ode.together.members import Members
from nm_ode.together.observed import observers_of
from nm_ode.together.view import MembersView

_VECTORS = 8
"""Matrices (M, P) that there are beside what is recorded: parameters, gradients, updates, and what makes them."""


def why_not(plans: Sequence[PlannedRun]) -> str:
    """Why the members' gradients cannot be taken at once; empty if they can."""
    problem = plans[0].problem
    if isinstance(problem, RandomProblem):
        return "a RandomProblem draws other numbers for each member"
    samples = next(_batches(plans[:2]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VectorisedWarning)
        problem.ensemble_loss_and_grad(torch.stack([plan.theta for plan in plans[:2]]), samples)
    why = problem.not_vectorised(own_batches=samples is not None)
    return why and f"torch.func.vmap is not possible for this loss ({why})"


def train_at_once(
    members: Members,
    plans: Sequence[PlannedRun],
    observers: Sequence[Observer],
    on_step: Callable[[int], None] | None,
    checkpoint: Checkpoint | None,
) -> xr.Dataset:
    """Let all members take each step at once.

    Args:
        plans: of each member.
        observers: what is recorded beside what every run has.

    Raises:
        ArgumentError: more than memory holds, or observers that cannot look at these members.
    """
    first, count = plans[0], len(plans)
    problem, steps, stateful = first.problem, first.grid.steps, any(plan.optimizer.stateful for plan in plans)
    width = max(plan.optimizer.state_layout(len(plan.theta)).size for plan in plans)
    room = count * first.theta.itemsize * (_VECTORS * len(first.theta) + 3 * width)
    require_memory(room, f"a step of {count} members", "take fewer members at a time")
    always, each = observers_of(plans, observers, sketch_in_place_of_theta(observers))
    recording = Recording([*always, *each], first.context())
    require_memory(
        recording.expected_bytes,
        f"what is recorded of {count} members in {steps} steps",
        "record less: a larger save_every, fewer steps, or fewer members at a time",
    )
    warm = [plan.state for plan in plans if plan.state is not None]
    starts = torch.stack([plan.theta for plan in plans])
    moving = Rows([plan.optimizer for plan in plans], starts, warm or None)
    fates = Fates(count, problem.device)
    states: dict[str, Tensor] = {}
    rates = np.stack([plan.grid.lr for plan in plans], axis=1)
    kept = KeptTraining(
        checkpoint,
        "training of members",
        problem,
        lambda: {"members": [plan.identity() for plan in plans]},
        lambda: problem.ensemble_loss_and_grad(starts, next(_batches(plans))),
        steps,
        _Moving(moving, fates),
        recording,
        states,
    )

    def evaluated(samples: Tensor | None) -> tuple[Tensor, Tensor]:
        """Losses and gradients of the living, in rows of all."""
        if len(fates.living) == count:
            return problem.ensemble_loss_and_grad(moving.theta, samples)
        rows = fates.rows
        found = problem.ensemble_loss_and_grad(moving.theta[rows], None if samples is None else samples[rows])
        losses, gradients = moving.theta.new_full((count,), float("nan")), torch.zeros_like(moving.theta)
        losses[rows], gradients[rows] = found
        return losses, gradients

    begin = kept.go_on()
    if begin and on_step is not None:
        on_step(begin)
    with kept.keeping():
        for step, samples in islice(enumerate(_batches(plans)), begin, steps):
            losses, gradients = evaluated(samples)
            if step == 0:
                kept.first(losses, gradients)
            fates.take(step, losses, now=recording.waits_at(step))
            if not fates.living:
                break
            view = MembersView(plans, step, moving, fates, losses, gradients, full=samples is None)
            kept.leave()
            if step == 0 and stateful:
                states["initial_state"] = moving.states(gradients)
            recording.observe(view)
            view.take_update(moving.step(gradients, rates[step]))
            recording.observe_update(view)
            kept.at(step + 1, fates.settle)
            if on_step is not None:
                on_step(step + 1)
        kept.at(steps, fates.settle, ending=True)
    if fates.living:
        last = MembersView(plans, steps, moving, fates)
        fates.take(steps, last.full_loss, now=True)
        if fates.living:
            recording.observe(last)
            if stateful:
                states["final_state"] = moving.states(torch.zeros_like(moving.theta))
    ends = [_end(plan, fates.ended(i)) for i, plan in enumerate(plans)]
    recorded = recording.dataset(before=None if fates.living else max(done for done, _ in ends))
    more: dict[str, Any] = {
        name: (("member",), np.array(values))
        for one in each
        for name, values in one.constants_of_members().items()
    }
    return of_recording(
        recorded, plans, ends, members, more, {name: one.cpu().numpy() for name, one in states.items()}
    )


class _Moving:
    """All that moves, for a checkpoint."""

    def __init__(self, *parts: Rows | Fates) -> None:
        self._parts = parts

    def snapshot(self) -> dict[str, Tensor]:
        return {
            f"{i}.{name}": one for i, part in enumerate(self._parts) for name, one in part.snapshot().items()
        }

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        for i, part in enumerate(self._parts):
            start = f"{i}."
            part.restore(
                {name.removeprefix(start): one for name, one in snapshot.items() if name.startswith(start)}
            )


def _batches(plans: Sequence[PlannedRun]) -> Iterator[Tensor | None]:
    grid = plans[0].grid
    assert grid.batch_size != "unknown"
    seeds = [plan.grid.seed for plan in plans]
    return member_batches(grid.n_samples, grid.batch_size, seeds, augmented=bool(grid.augmentation))


def _end(plan: PlannedRun, ended: tuple[int, float] | None) -> tuple[int, str]:
    """How many steps a member took, and why no more."""
    if ended is None:
        return plan.grid.steps, ""
    return ended[0], plan.why_not_finite(*ended)
