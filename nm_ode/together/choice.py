"""All members at once, or one after another: as is asked, or as is faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem, ProblemError
from nm_ode.loss.given import require_problem
from nm_ode.modes import in_own_modes
from nm_ode.observers import Observer, require_observers, sketch_in_place_of_theta
from nm_ode.optimizers import Optimizer, require_optimizer
from nm_ode.planned import PlannedRun
from nm_ode.required import require_callable
from nm_ode.results.checkpoints import Checkpoint, as_checkpoint
from nm_ode.together.gathered import of_runs
from nm_ode.together.members import Members
from nm_ode.together.training import train_at_once, why_not
from nm_ode.together.worth import Worth, measured
from nm_ode.training import TrainingDiverged, train


def train_members(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    members: Members,
    *,
    observe: Sequence[Observer] = (),
    on_step: Callable[[int], None] | None = None,
    checkpoint: Any = None,
    **common: Any,
) -> xr.Dataset:
    """`train(..., members=members)`.

    Args:
        common: what else `train` takes, the same for all members.

    Raises:
        ProblemError: the members were to be trained at once, and cannot be.
        ArgumentError: as `train`, and of Members.
    """
    require_callable(on_step, "on_step", "lambda done: print(done)")
    observers, kept_in = require_observers(observe), as_checkpoint(checkpoint)
    arguments, plans = _planned(problem, optimizer, steps, members, observers, common)
    at_once = members.vectorise
    if at_once is True and (reason := why_not(plans)):
        raise ProblemError(
            f"the members cannot be trained at once: {reason}; Members(vectorise=False) trains one after another"
        )
    if at_once == "auto":
        at_once = members.count > 1 and _worth(problem, steps, members, arguments, plans, observers).is_faster
    if at_once:
        return train_at_once(members, plans, observers, on_step, kept_in)
    runs = []
    for i, one in enumerate(arguments):

        def so_far(done: int, before: int = i * plans[0].grid.steps) -> None:
            if on_step is not None:
                on_step((before + done) // members.count)

        own = None if kept_in is None else replace(kept_in, path=_own(kept_in, i))
        try:
            runs.append(train(problem, steps=steps, observe=observers, on_step=so_far, checkpoint=own, **one))
        except TrainingDiverged as diverged:
            runs.append(diverged.run)
    return of_runs(runs, plans, members)


@in_own_modes
def worthwhile(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    members: Members,
    *,
    observe: Sequence[Observer] = (),
    **common: Any,
) -> Worth:
    """What a step of all members takes at once, and one after another: some steps of each are taken.

    Args:
        observe, common: as `train` takes them.

    Raises:
        ArgumentError: as `train`, and of Members.
    """
    observers = require_observers(observe)
    arguments, plans = _planned(problem, optimizer, steps, members, observers, common)
    return _worth(problem, steps, members, arguments, plans, observers)


def _planned(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    members: Members,
    observers: Sequence[Observer],
    common: dict[str, Any],
) -> tuple[list[dict[str, Any]], list[PlannedRun]]:
    require_problem(problem)
    require_optimizer(optimizer)
    if not isinstance(members, Members):
        raise ArgumentError("members must be nm_ode.Members(…), such as nm_ode.Members(seed=range(8))")
    common = {"batch_size": "full", "seed": 0, "save_every": 1, **common}
    common = {"theta0": None, "state0": None, "schedule": None, **common}
    sketch = sketch_in_place_of_theta(observers)
    plans = []
    arguments = members.arguments(optimizer, common)
    for i, one in enumerate(arguments):
        try:
            plans.append(
                PlannedRun.of(problem, steps=steps, sketch=None if sketch is None else sketch.m, **one)
            )
        except ArgumentError as error:
            raise ArgumentError(f"member {i}: {error}") from None
    return arguments, plans


def _worth(
    problem: Problem,
    steps: int,
    members: Members,
    arguments: Sequence[dict[str, Any]],
    plans: Sequence[PlannedRun],
    observers: Sequence[Observer],
) -> Worth:
    return measured(
        members,
        plans,
        observers,
        lambda observe, on_step: train(
            problem, steps=steps, observe=observe, on_step=on_step, **arguments[0]
        ),
    )


def _own(checkpoint: Checkpoint, member: int) -> Any:
    """The file of one member of several that are trained one after another."""
    return checkpoint.path.with_name(f"{checkpoint.path.name}.{member}")
