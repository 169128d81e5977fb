"""The discrete run: an optimiser takes the steps, observers record them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import torch
import xarray as xr
from torch import Tensor

from nm_ode.data import BatchSize
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.loss import Problem, RandomProblem
from nm_ode.loss.random_problem import drawn
from nm_ode.memory import require_memory
from nm_ode.modes import in_own_modes
from nm_ode.observers import Observer, Recording, View, require_observers, sketch_in_place_of_theta
from nm_ode.optimizers import Optimizer, Schedule
from nm_ode.optimizers.steppers import kept as kept_state
from nm_ode.optimizers.steppers import start
from nm_ode.planned import PlannedRun, always_recorded, steps_between_checks
from nm_ode.required import as_flag, require_callable, require_dataset
from nm_ode.results import TimeGrid, annotate, run_info, write_run_info
from nm_ode.results.checkpoints import Checkpoint, as_checkpoint
from nm_ode.resuming import KeptTraining

if TYPE_CHECKING:
    from nm_ode.together import Members


class TrainingDiverged(NmOdeError, RuntimeError):  # noqa: N818 (what happened, not what is broken)
    """The loss is no longer finite.

    Attributes:
        step: the step whose loss is not finite.
        run: the run up to there, as `train` would have returned it.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> try:
        ...     nm_ode.train(problem, nm_ode.SGD(lr=1e3), steps=200)
        ... except nm_ode.TrainingDiverged as error:
        ...     print(nm_ode.run_info(error.run).status, len(error.run.loss) == error.step)
        diverged True
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
    members: Members | None = None,
    full_loss: bool = True,
) -> xr.Dataset:
    """Train from theta0 and record each step: `/discrete` of docs/design.md.

    Of theta's size it holds theta, the gradient, the update and the optimiser's memory, and what is recorded: theta at
    each saved step, unless a `Sketch` stands in for it, and a stateful optimiser's state at both ends.

    Args:
        problem: whose loss; of a `RandomProblem` each step has its own draw.
        optimizer: takes the steps.
        steps: number of updates, at least 1.
        batch_size: "full", or the number of samples in a minibatch (the last of an epoch may be smaller).
        seed: of the order of the samples and of a loss that is drawn; the same seed gives the same bits on one machine.
        save_every: theta is kept at steps 0, save_every, 2·save_every, … and at the last; or at those of a list, the
            first and the last.
        theta0: where to start, shape (P,), the optimiser at rest; the problem's own start if None.
        state0: the whole state to start from instead, shape (S,), as `final_state` of an earlier run gives it: a warm
            start.
        schedule: of the learning rate; constant if None.
        observe: what else to record, such as `Charges(find_symmetries(…))` or an observer of your own; with a
            `Sketch` among them a sketch is kept where theta would be.
        on_step: called with the number of steps done, for a progress bar.
        checkpoint: a file in which the training is kept while it runs. If it is cut off, the same call goes on from
            there, to the same bits (`nm_ode.Checkpoint` has how often, and who is told).
        members: of many runs, in what they differ; what is given here otherwise is the same for all. They take each
            step at once (nm_ode/together). The dataset has the dimension `member` before all others; `member_status`
            says who diverged (which raises nothing), and `nm_ode.member_run` gives a member's run.
        full_loss: record the loss over all samples at saved steps; not, where there are many and a normalisation over
            the batch forbids chunks.

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

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.05), steps=20, batch_size=64, save_every=10)
        >>> dict(run.theta.sizes), run.saved_step.values
        ({'saved_step': 3, 'param': 11}, array([ 0, 10, 20]))
        >>> bool(run.full_loss[-1] < run.full_loss[0])
        True
    """
    full_loss = as_flag(full_loss, "full_loss")
    if members is not None:
        if not full_loss:
            raise ArgumentError("full_loss = False is for a run of its own: leave it or members out")
        from nm_ode.together import train_members

        common = {"batch_size": batch_size, "seed": seed, "save_every": save_every, "schedule": schedule}
        starts = {"theta0": theta0, "state0": state0}
        loop = {"observe": observe, "on_step": on_step, "checkpoint": checkpoint}
        return train_members(problem, optimizer, steps, members, **loop, **common, **starts)  # type: ignore[arg-type]
    require_callable(on_step, "on_step", "lambda done: print(done)")
    observers, kept_in = require_observers(observe), as_checkpoint(checkpoint)
    sketch = sketch_in_place_of_theta(observers)
    plan = PlannedRun.of(
        problem,
        optimizer,
        steps,
        batch_size=batch_size,
        seed=seed,
        save_every=save_every,
        theta0=theta0,
        state0=state0,
        schedule=schedule,
        sketch=None if sketch is None else sketch.m,
    )
    grid, steps, is_random = plan.grid, plan.grid.steps, isinstance(problem, RandomProblem)
    stepper = start(optimizer, plan.theta, plan.state)
    recording = Recording([*always_recorded(sketch, full_loss=full_loss), *observers], plan.context())
    require_memory(
        recording.expected_bytes,
        f"what is recorded in {steps} steps",
        "record less: Charges(symmetries, every=…), a larger save_every, fewer steps",
    )
    states: dict[str, Tensor] = {}
    gradient, update = torch.empty_like(plan.theta), torch.empty_like(plan.theta)

    def probe() -> tuple[Tensor, Tensor]:
        with drawn(problem, grid.seed, 0):
            return problem.loss_and_grad(plan.theta, next(grid.each_batch()))

    kept = KeptTraining(kept_in, "training", problem, plan.identity, probe, steps, stepper, recording, states)

    def finish(done: int, diverged: str = "") -> xr.Dataset:
        problem.rest()  # and let go of a theta in the optimiser's memory
        made = recording.dataset(before=done if diverged else None)
        whole = {name: ("state_index", one.cpu().numpy()) for name, one in states.items()}
        return annotate(write_run_info(made.assign(whole), plan.info(done, diverged)))

    def require_finite(losses: dict[int, Tensor]) -> None:
        for step, loss in zip(losses, _fetched(list(losses.values())), strict=True):
            if not math.isfinite(loss):
                message = plan.why_not_finite(step, loss)
                raise TrainingDiverged(message, step, finish(step, message))
        losses.clear()

    together = steps_between_checks(problem.device)
    unchecked: dict[int, Tensor] = {}
    settle, first = partial(require_finite, unchecked), kept.go_on()
    if first and on_step is not None:
        on_step(first)
    with kept.keeping(), problem.read_ahead(islice(grid.each_batch(), first, None)) as batches:
        for step, batch in enumerate(batches, first):
            with drawn(problem, grid.seed, step):
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
                states["initial_state"] = kept_state(stepper.state_itself(gradient))
            recording.observe(view)
            update.copy_(stepper.theta)  # of before it
            stepper.step(gradient, view.lr)
            view.take_update(torch.sub(stepper.theta, update, out=update))
            recording.observe_update(view)
            kept.at(step + 1, settle)
            if on_step is not None:
                on_step(step + 1)
        kept.at(steps, settle, ending=True)
    last = View(problem, steps, float(grid.times[-1]), stepper.theta, state=lambda: stepper.state(gradient))
    require_finite({**unchecked, steps: last.full_loss if full_loss else _loss_of_last(problem, last, grid)})
    recording.observe(last)
    if optimizer.stateful:
        states["final_state"] = stepper.state_itself(gradient)
    return finish(steps)


def final_state(run: xr.Dataset) -> Tensor:
    """The optimiser's whole state at the end of a run, to be another's `state0`.

    Args:
        run: from `train`.

    Returns:
        Shape (S,): theta, and what the optimiser remembers beside it, in the order of its `state_layout`.

    Raises:
        ArgumentError: the run's end is not in it, because it diverged or was cut.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, adam = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.Adam(lr=1e-3)
        >>> state = nm_ode.final_state(nm_ode.train(problem, adam, steps=20))
        >>> adam.state_layout(11).named(state)["step"]
        tensor([20.], dtype=torch.float64)
        >>> float(nm_ode.train(problem, adam, steps=5, state0=state).initial_state[-1])
        20.0
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


def _loss_of_last(problem: Problem, view: View, grid: TimeGrid) -> Tensor:
    """Of the last step's samples, after it: not finite where theta is not."""
    samples = next(islice(grid.each_batch(), grid.steps - 1, None))
    with drawn(problem, grid.seed, grid.steps):
        return problem.loss(view.theta, samples)


def _fetched(losses: list[Tensor]) -> list[float]:
    """Numbers from the device, all at once."""
    if len(losses) == 1:
        return [losses[0].item()]
    found: list[float] = torch.stack(losses).tolist() if losses else []
    return found
