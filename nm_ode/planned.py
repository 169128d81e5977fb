"""A run that is about to be taken: all that is settled before its first step."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.arguments import as_count, as_tensor, as_vector
from nm_ode.data.batches import as_batch_size
from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem
from nm_ode.loss.finite import why_not_finite
from nm_ode.loss.given import require_problem
from nm_ode.observers import Context, Losses, Norms, Observer, Sketch, Trajectory, as_save_every, saved_steps
from nm_ode.observers.room import require_room
from nm_ode.optimizers import Optimizer, describe, factors_of, hyperparameters, require_optimizer
from nm_ode.required import as_seed
from nm_ode.results import RunInfo, TimeGrid
from nm_ode.results.segments import digest

ALWAYS_RECORDED: tuple[type[Observer], ...] = (Losses, Norms, Trajectory)
"""Observers of every run; a `Sketch` stands in for theta."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """What `train` is asked for, checked.

    Attributes:
        theta: shape (P,), where it starts.
        state: the optimiser's whole state of a warm start; None for one at rest.
        save_every: as `as_save_every` gives it.
        foreign_gradient: why the gradient is not the loss's; empty where it is.
    """

    problem: Problem
    optimizer: Optimizer
    grid: TimeGrid
    theta: Tensor
    state: Tensor | None
    save_every: int | tuple[int, ...]
    foreign_gradient: str

    @classmethod
    def of(
        cls,
        problem: Problem,
        optimizer: Optimizer,
        steps: int,
        *,
        batch_size: Any,
        seed: Any,
        save_every: Any,
        theta0: Any,
        state0: Any,
        schedule: Any,
        sketch: int | None = None,
    ) -> PlannedRun:
        """Of the arguments of `train`.

        Args:
            sketch: numbers that are kept in place of each theta.

        Raises:
            ArgumentError: one that is none, or a run whose series do not fit into memory.
        """
        require_problem(problem)
        require_optimizer(optimizer)
        steps, seed = as_count(steps, "steps"), as_seed(seed)
        kept_steps = as_save_every(save_every)
        batch_size = as_batch_size(batch_size, problem.n_samples)
        foreign_gradient = problem.foreign_gradient  # measured before the run's own vectors are there
        theta, state = _start(problem, optimizer, theta0, state0)
        saved = steps // kept_steps + 1 if isinstance(kept_steps, int) else len(kept_steps) + 2
        require_room(problem, steps, saved, sketch=sketch)
        grid = TimeGrid.planned(
            optimizer.lr,
            optimizer.time_per_step,
            factors_of(schedule, optimizer.lr, steps),
            batch_size=batch_size,
            seed=seed,
            n_samples=problem.n_samples,
            augmentation="" if problem.augmentation is None else str(problem.augmentation),
        )
        return cls(problem, optimizer, grid, theta, state, kept_steps, foreign_gradient)

    @property
    def saved_steps(self) -> Collection[int]:
        return saved_steps(self.save_every, self.grid.steps)

    def context(self) -> Context:
        """For its observers."""
        return Context(
            given_problem=self.problem,
            optimizer=self.optimizer,
            steps=self.grid.steps,
            saved_steps=self.saved_steps,
            device=self.problem.device,
            grid=self.grid,
        )

    def info(self, done: int, diverged: str = "") -> RunInfo:
        """The record of the run after so many steps.

        Args:
            diverged: the sentence that says so.
        """
        return RunInfo(
            optimizer=type(self.optimizer).__name__,
            hyperparameters=hyperparameters(self.optimizer),
            optimizer_text=describe(self.optimizer),
            time_per_step=self.optimizer.time_per_step,
            stateful=self.optimizer.stateful,
            warm_start=self.state is not None,
            grid=self.grid.first(done),
            layout=self.problem.layout,
            foreign_gradient=self.foreign_gradient,
            autocast=self.problem.autocast or "",
            status="diverged" if diverged else "success",
            message=diverged,
        )

    def why_not_finite(self, step: int, loss: float) -> str:
        """The sentence that says why the run ended at this step."""
        samples = next(islice(self.grid.each_batch(), step, None)) if step < self.grid.steps else None
        why = why_not_finite(loss, step, self.optimizer.lr, self.problem.chunks(samples))
        return why + self.problem.beyond_float16

    def identity(self) -> dict[str, Any]:
        """What fixes it beside the problem, as JSON has it: for a checkpoint."""
        optimizer, grid = self.optimizer, self.grid
        return {
            "steps": grid.steps,
            "optimizer": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
            "hyperparameters": {name: repr(value) for name, value in hyperparameters(optimizer).items()},
            "learning rates": digest(grid.lr, grid.times),
            "batches": [grid.batch_size, grid.seed, *filter(None, [grid.augmentation])],
            "saved steps": self.save_every if isinstance(self.save_every, int) else list(self.save_every),
            "start": digest(_array(self.theta), np.empty(0) if self.state is None else _array(self.state)),
        }


def always_recorded(sketch: Sketch | None, *, full_loss: bool = True) -> list[Observer]:
    """Observers of a run, with what stands in for theta if anything does.

    Args:
        full_loss: is the loss over all samples recorded?
    """
    kinds = [kind for kind in ALWAYS_RECORDED if sketch is None or kind is not Trajectory]
    return [Losses(full_loss) if kind is Losses else kind() for kind in kinds]


def steps_between_checks(device: torch.device) -> int:
    """How many steps are taken before their losses are checked: a check waits for a GPU, on a CPU it is free."""
    return 1 if device.type == "cpu" else 64


def _start(problem: Problem, optimizer: Optimizer, theta0: Any, state0: Any) -> tuple[Tensor, Tensor | None]:
    """theta to start from, and the whole state of a warm start."""

    def placed(part: Tensor) -> Tensor:
        return part.detach().to(device=problem.device, dtype=problem.dtype)

    if state0 is None:
        return placed(problem.theta0 if theta0 is None else as_vector(theta0, "theta0", problem.theta0)), None
    if theta0 is not None:
        raise ArgumentError("theta0 and state0 were given; state0 has the theta to start from")
    layout = optimizer.state_layout(problem.layout.size)
    whole = as_tensor(state0, "state0")
    layout.split(whole)  # of this optimiser, or an error
    state = as_vector(whole, "state0", problem.theta0.new_empty(layout.size))
    return layout.split(state)[0], state


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())
