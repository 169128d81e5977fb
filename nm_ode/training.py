"""The discrete run: an optimiser takes the steps, observers record them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import torch
import xarray as xr
from torch import Tensor

from nm_ode.arguments import as_count, as_tensor, as_vector
from nm_ode.data import BatchSize
from nm_ode.data.batches import as_batch_size
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.loss import Problem, RandomProblem
from nm_ode.loss.finite import why_not_finite
from nm_ode.loss.given import require_problem
from nm_ode.loss.random_problem import drawn
from nm_ode.memory import require_memory
from nm_ode.modes import in_own_modes
from nm_ode.observers import (
    Context,
    Losses,
    Norms,
    Observer,
    Recording,
    Trajectory,
    View,
    as_save_every,
    require_observers,
    saved_steps,
    sketch_in_place_of_theta,
)
from nm_ode.observers.room import require_room
from nm_ode.optimizers import (
    Optimizer,
    Schedule,
    describe,
    factors_of,
    hyperparameters,
    require_optimizer,
)
from nm_ode.optimizers.steppers import start
from nm_ode.required import as_seed, require_callable, require_dataset
from nm_ode.results import RunInfo, TimeGrid, annotate, run_info, write_run_info
from nm_ode.results.checkpoints import Checkpoint, as_checkpoint
from nm_ode.resuming import KeptTraining

ALWAYS_RECORDED: tuple[type[Observer], ...] = (Losses, Norms, Trajectory)
"""Observers of every run; a `Sketch` stands in for the trajectory."""


class TrainingDiverged(NmOdeError, RuntimeError):  # noqa: N818 (what happened, not what is broken)
    """The loss is no longer finite.

    Attributes:
        step: the step whose loss is not finite.
        run: the run up to there, as `train` would have returned it.
    """

    def __init__(self, message: str, step: int, run: xr.Dataset) -> None:
        super().__init__(message)
        self.step = step
        self.run = run


@in_own_modes
def train(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    *,
    batch_size: BatchSize = "full",
    seed: int = 0,
    save_every: int | Sequence[int] = 1,
    theta0: Tensor | None = None,
    state0: Tensor | None = None,
    schedule: Schedule | None = None,
    observe: Sequence[Observer] = (),
    on_step: Callable[[int], None] | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Train from theta0 and record each step: `/discrete` of docs/design.md.

    Args:
        problem: whose loss; of a `RandomProblem` each step has its own draw.
        steps: number of updates, at least 1.
        batch_size: "full", or the number of samples in a minibatch (the last of an epoch may be smaller).
        seed: of the order of the samples and of a loss that is drawn; the same seed gives the same bits on one machine.
        save_every: theta is kept at steps 0, save_every, 2·save_every, … and at the last; or at those of a list, the
            first and the last.
        theta0: where to start, the optimiser at rest; the problem's own start if None.
        state0: the whole state to start from instead, as `final_state` of an earlier run gives it: a warm start.
        schedule: of the learning rate; constant if None.
        observe: what else to record, such as `Charges(find_symmetries(…))` or an observer of your own; with a
            `Sketch` among them a sketch is kept where theta would be.
        on_step: called with the number of steps done, for a progress bar.
        checkpoint: a file in which the training is kept while it runs. If it is cut off, the same call goes on from
            there, to the same bits (`nm_ode.Checkpoint` has how often, and who is told).

    Returns:
        Dimensions `step` (0 … steps−1: the state before an update and what the update did), `saved_step`, `layer`,
        `param`. Variables: `loss`, `grad_norm`, `update_norm` and `layer_grad_norm`, `layer_update_norm` on the step's
        batch; `lr`; `theta` and `full_loss` (all samples) at saved steps; `initial_state` and `final_state` (dimension
        `state_index`) of a stateful optimiser; and what the observers add. Coordinates `time`, `saved_time`: flow time.
        `nm_ode.run_info` gives the typed record of the run.

    Raises:
        TrainingDiverged: the loss is not finite; what was recorded is its attribute `run`.
        ArgumentError: steps, batch_size or save_every out of range, a state of another optimiser, what is no
            observer, or two observers with a variable of one name.
    """
    require_problem(problem)
    require_optimizer(optimizer)
    steps, seed = as_count(steps, "steps"), as_seed(seed)
    kept_steps = as_save_every(save_every)
    batch_size = as_batch_size(batch_size, problem.n_samples)
    require_callable(on_step, "on_step", "lambda done: print(done)")
    observers, kept_in = require_observers(observe), as_checkpoint(checkpoint)
    foreign_gradient = problem.foreign_gradient
    is_random = isinstance(problem, RandomProblem)
    theta, state = _start(problem, optimizer, theta0, state0)
    sketch = sketch_in_place_of_theta(observers)
    saved = steps // kept_steps + 1 if isinstance(kept_steps, int) else len(kept_steps) + 2
    require_room(problem, steps, saved, sketch=None if sketch is None else sketch.m)
    factors = factors_of(schedule, optimizer.lr, steps)
    grid = TimeGrid.planned(
        optimizer.lr,
        optimizer.time_per_step,
        factors,
        batch_size=batch_size,
        seed=seed,
        n_samples=problem.n_samples,
    )
    stepper = start(optimizer, theta, state)
    context = Context(
        given_problem=problem,
        optimizer=optimizer,
        steps=steps,
        saved_steps=saved_steps(kept_steps, steps),
        device=problem.device,
        grid=grid,
    )
    kinds = [kind for kind in ALWAYS_RECORDED if sketch is None or kind is not Trajectory]
    recording = Recording([*(kind() for kind in kinds), *observers], context)
    require_memory(
        recording.expected_bytes,
        f"what is recorded in {steps} steps",
        "record less: Charges(symmetries, every=…), a larger save_every, fewer steps",
    )
    states: dict[str, Tensor] = {}
    gradient = torch.empty_like(theta)
    kept = KeptTraining(
        kept_in,
        problem,
        optimizer,
        grid,
        theta,
        state,
        kept_steps,
        stepper,
        recording,
        states,
    )

    def finish(done: int, diverged: str = "") -> xr.Dataset:
        info = RunInfo(
            optimizer=type(optimizer).__name__,
            hyperparameters=hyperparameters(optimizer),
            optimizer_text=describe(optimizer),
            time_per_step=optimizer.time_per_step,
            stateful=optimizer.stateful,
            warm_start=state0 is not None,
            grid=grid.first(done),
            layout=problem.layout,
            foreign_gradient=foreign_gradient,
            status="diverged" if diverged else "success",
            message=diverged,
        )
        made = recording.dataset(before=done if diverged else None)
        whole = {name: ("state_index", one.cpu().numpy()) for name, one in states.items()}
        return annotate(write_run_info(made.assign(whole), info))

    def require_finite(losses: dict[int, Tensor]) -> None:
        for step, loss in zip(losses, _fetched(list(losses.values())), strict=True):
            if not math.isfinite(loss):
                seen = next(islice(grid.each_batch(), step, None)) if step < grid.steps else None
                message = why_not_finite(loss, step, optimizer.lr, problem.chunks(seen))
                raise TrainingDiverged(message, step, finish(step, message))
        losses.clear()

    together = steps_between_checks(theta.device)
    unchecked: dict[int, Tensor] = {}
    settle, first = partial(require_finite, unchecked), kept.go_on()
    if first and on_step is not None:
        on_step(first)
    with kept.keeping():
        for step, batch in islice(enumerate(grid.each_batch()), first, None):
            with drawn(problem, seed, step):
                loss, _ = problem.loss_and_grad(stepper.theta, batch, out=gradient)
            if step == 0:
                kept.first(loss, gradient)
            unchecked[step] = loss
            if len(unchecked) >= together or recording.waits_at(step):
                require_finite(unchecked)
            view = View(
                problem,
                step,
                float(grid.times[step]),
                stepper.theta,
                lr=float(grid.lr[step]),
                loss_and_gradient=lambda loss=loss: (loss, gradient),  # type: ignore[misc]
                # With the whole data as the batch, its loss is the full loss already, unless it was drawn.
                full_loss=(lambda loss=loss: loss) if batch is None and not is_random else None,  # type: ignore[misc]
                state=lambda: stepper.state(gradient),
                memory=stepper.memory,
            )
            kept.leave()
            if step == 0 and optimizer.stateful:
                states["initial_state"] = view.state()
            recording.observe(view)
            before = stepper.theta.clone()
            stepper.step(gradient, view.lr)
            view.take_update(torch.sub(stepper.theta, before, out=before))
            recording.observe_update(view)
            kept.at(step + 1, settle)
            if on_step is not None:
                on_step(step + 1)
        kept.at(steps, settle, ending=True)
    last = View(problem, steps, float(grid.times[-1]), stepper.theta, state=lambda: stepper.state(gradient))
    require_finite({**unchecked, steps: last.full_loss})
    recording.observe(last)
    if optimizer.stateful:
        states["final_state"] = last.state()
    return finish(steps)


def steps_between_checks(device: torch.device) -> int:
    """How many steps are taken before their losses are checked: a check waits for a GPU, on a CPU it is free."""
    return 1 if device.type == "cpu" else 64


def final_state(run: xr.Dataset) -> Tensor:
    """The optimiser's whole state at the end of a run, to be another's `state0`.

    Raises:
        ArgumentError: the run's end is not in it, because it diverged or was cut.
    """
    require_dataset(run, "run", "nm_ode.train")
    if "final_state" in run:
        return torch.from_numpy(run["final_state"].values.copy())
    info = run_info(run)
    for name in ("saved_step", "theta"):
        if name not in run.variables:
            raise ArgumentError(f"the state at the end of this run is not known: it has no {name!r}")
    saved = run["saved_step"].values
    if info.stateful or info.grid.steps not in saved[-1:]:
        why = info.message or "its last saved steps were cut off"
        raise ArgumentError(f"the state at the end of this run is not known: {why}")
    return torch.from_numpy(run["theta"].values[-1].copy())


def _fetched(losses: list[Tensor]) -> list[float]:
    """Numbers from the device, all at once."""
    if len(losses) == 1:
        return [losses[0].item()]
    found: list[float] = torch.stack(losses).tolist() if losses else []
    return found


def _start(
    problem: Problem, optimizer: Optimizer, theta0: Tensor | None, state0: Tensor | None
) -> tuple[Tensor, Tensor | None]:
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
