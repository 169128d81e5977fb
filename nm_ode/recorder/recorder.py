"""The recorder: what a user adds to a training loop of their own."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from nm_ode.arguments import as_count
from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem
from nm_ode.observers import (
    OPEN_END,
    Context,
    Loop,
    Losses,
    Norms,
    Observer,
    Recording,
    Trajectory,
    View,
    require_observers,
)
from nm_ode.optimizers import describe, hyperparameters
from nm_ode.parameters import Layout, Parts
from nm_ode.passes import Wanted
from nm_ode.recorder.conditions import Conditions
from nm_ode.recorder.followed import (
    followed_parameters,
    process_of,
    require_optimizer_of_torch,
    unwrapped,
)
from nm_ode.recorder.hooks import StepHooks
from nm_ode.recorder.known import known_optimizer, plain_hyperparameters
from nm_ode.recorder.pending import PendingLosses
from nm_ode.recorder.rates import ParameterRates
from nm_ode.recorder.states import has_state, whole_state
from nm_ode.recorder.velocity import VelocityRule
from nm_ode.results import RunInfo, TimeGrid, annotate, write_run_info

_PART_OF_LOSS = "the loss is that of the first of {} processes, and the gradient that of all"


class Recorder:
    """Records a training loop of the user's own: one `with` line, and the loop as it was.

        with nm_ode.Recorder(model, optimizer, "run.zarr", observe=[nm_ode.Charges(symmetries)]) as recorder:
            for x, y in batches:
                optimizer.zero_grad()
                loss = loss_fn(model(x), y)
                loss.backward()
                recorder.loss(loss)
                optimizer.step()

    What it follows is what the optimiser moves: those of its parameters that are the model's and not frozen. A step is
    a call of `optimizer.step` that moves them: one that a GradScaler leaves out is none. The gradient is the one that
    the step takes: summed over several backward passes, unscaled, clipped, averaged over processes; a sparse one is
    made dense.

    Under DistributedDataParallel each process makes its Recorder, and that of the first records: the gradient of all,
    and the loss that this process gives.

    Args:
        model: the module that is trained, compiled or within DistributedDataParallel too.
        optimizer: any torch optimiser.
        store: where to write; None keeps the run in memory, for `run`.
        observe: what to record beside the losses and norms of every run, as in `train`.
        save_every: theta is kept at steps 0, save_every, …, and the optimiser's whole state at the start and the end;
            None keeps none.
        follow_frozen: follow all parameters of the model, also those that are frozen or not in the optimiser yet.
        problem: the loss, for observers that evaluate it; None where none does.
        update_by_rule: take the update of torch's SGD with momentum as −lr·v, as the optimiser adds it before theta is
            rounded, instead of the difference to a copy of theta: half the cost where memory's bandwidth is all of it,
            and no copy. The first steps, and one in 256 later, are held against it.
        full_batch: did each step see all samples? Flows of the whole loss are then compared without a remark.

    Raises:
        ArgumentError: a model without parameters that the optimiser has, one whose parameters are spread over several
            devices or processes, or what is no observer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        store: str | os.PathLike[str] | None = None,
        *,
        observe: Sequence[Observer] = (),
        save_every: int | None = None,
        follow_frozen: bool = False,
        problem: Problem | None = None,
        update_by_rule: bool = False,
        full_batch: bool = False,
    ) -> None:
        self._process, self._processes = process_of(model)
        self._model, self._optimizer, self._store = (
            unwrapped(model),
            require_optimizer_of_torch(optimizer),
            store,
        )
        self._problem, self._full_batch = problem, full_batch
        self._save_every = None if save_every is None else as_count(save_every, "save_every")
        self._observers = require_observers(observe)
        named = followed_parameters(self._model, self._optimizer, follow_frozen=follow_frozen)
        self._follow_frozen = follow_frozen
        self._parameters = list(named.values())
        self._layout = Layout.of_parameters(named)
        self._rule = VelocityRule(self._optimizer, self._layout, self._parameters) if update_by_rule else None
        if problem is not None and problem.layout != self._layout:
            raise ArgumentError(
                "the problem has other parameters than those that the optimiser moves: make it of this model, with the "
                "same ones frozen"
            )
        known = known_optimizer(self._optimizer)
        self._known, self._why_unknown = known.optimizer, known.why_not
        self._named = named
        self._hooks: StepHooks | None = None
        self._recording: Recording | None = None
        self._conditions: Conditions | None = None
        self._pending = PendingLosses()
        self._lrs: list[float] = []
        self._times = [0.0]
        self._view: View | None = None
        self._states: dict[str, Tensor] = {}
        self._warm_start = False
        self._skipped = 0
        self._ended = ""

    def __enter__(self) -> Recorder:
        if self._recording is not None:
            raise ArgumentError("a Recorder records one loop: make a new one for the next")
        known = self._known
        decays = (
            known is None or known.stateful or bool(hyperparameters(known).get("weight_decay"))
        )  # what torch leaves out where there is no gradient
        self._conditions = Conditions(self._optimizer, self._named, self._model, decays)
        context = Context(
            given_problem=self._problem,
            optimizer=known,
            steps=OPEN_END,
            saved_steps=() if self._save_every is None else range(0, OPEN_END, self._save_every),
            device=self._parameters[0].device,
            given_layout=self._layout,
            loop=Loop(self._model),
        )
        always: list[Observer] = [Losses(), Norms()]
        if self._save_every is not None:
            always.append(Trajectory())
        if self._follow_frozen or len(self._optimizer.param_groups) > 1:
            always.append(ParameterRates(self._layout, self._conditions.rates))
        self._recording = Recording([*always, *self._observers], context)
        if self._process == 0:
            self._hooks = hooks = StepHooks(self._optimizer, self._layout, self._parameters, self, self._rule)
            if self._rule is None:  # the pass that makes sums over theta keeps it for the update as well
                context.passes.know("kept_theta", lambda view: hooks.room_for_theta())
                context.passes.ask(Wanted(copies=frozenset({("theta", "kept_theta")})), range(OPEN_END))
            self._pending.watch(self._parameters)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._hooks is None or self._conditions is None:
            return
        within_step = self._hooks.within_step
        self._hooks.remove()
        self._conditions.remove()
        self._pending.stop()
        if kind is not None:
            self._end(f"the loop ended in {kind.__name__}")
        if (kind is None or issubclass(kind, KeyboardInterrupt)) and not within_step:
            self._observe_end()

    def loss(self, value: Tensor | float) -> None:
        """The loss whose gradient the next step takes; of several before one step, their mean is recorded.

        Give it as it is, without a GradScaler's factor or that of an accumulation. What a closure returns is recorded
        by itself.

        Raises:
            ArgumentError: it comes after its step.
        """
        if self._process == 0 and not (self._hooks is not None and self._hooks.told):
            self._pending.give(value)

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return len(self._lrs)

    @property
    def skipped_steps(self) -> int:
        """Steps that a GradScaler left out, as far as it has been seen: if it does not call the optimiser, the next
        backward pass shows it.
        """
        return self._skipped + self._pending.dropped

    @property
    def run(self) -> xr.Dataset:
        """What was recorded, as `train` gives it.

        Raises:
            ArgumentError: nothing was, because the loop has not begun, or another process records it.
        """
        if self._recording is None or self._process:
            why = (
                f"process {self._process} records nothing: the first one does" if self._process else "no loop"
            )
            raise ArgumentError(f"there is no run: {why}")
        made = self._recording.dataset(before=self.steps if self._ended else None)
        whole = {name: ("state_index", one.cpu().numpy()) for name, one in self._states.items()}
        return annotate(write_run_info(made.assign(whole), self._info()))

    # -- StepListener

    def before_step(self, gradients: Sequence[Tensor | None], of_closure: Any) -> None:
        """See `StepListener`."""
        if self._ended:
            return
        assert self._hooks is not None
        assert self._recording is not None
        assert self._conditions is not None
        try:
            lr = self._conditions.before_step(self.steps, gradients)
            gradient = self._hooks.parts(gradients)
            loss = self._pending.take(gradient.device, of_closure)
            if loss is None:
                loss = gradient.new_zeros(()) + math.nan
            if not self.steps:
                self._begin(gradient)
            self._view = View(
                self._problem,
                self.steps,
                self._times[-1],
                self._hooks.theta(),
                lr=lr,
                loss_and_gradient=lambda: (loss, gradient),
                memory=self._memory,
            )
            self._recording.observe(self._view)
        except BaseException as error:
            self._end(f"recording ended in {type(error).__name__} at step {self.steps}")
            raise

    def after_step(self, update: Parts) -> None:
        """See `StepListener`."""
        if self._ended:
            return
        assert self._hooks is not None
        assert self._view is not None
        assert self._recording is not None
        assert self._conditions is not None
        try:
            self._view.theta_parts = self._hooks.theta()
            self._view.take_update(update)
            self._recording.observe_update(self._view)
        except BaseException as error:
            self._end(f"recording ended in {type(error).__name__} at step {self.steps}")
            raise
        self._conditions.after_step()
        self._pending.step_ended()
        lr = self._view.lr
        share = 1.0 if self._known is None else self._known.time_per_step / self._known.lr
        self._lrs.append(lr)
        self._times.append(self._times[-1] + lr * share)

    def step_skipped(self) -> None:
        """See `StepListener`."""
        self._skipped += 1
        self._pending.clear()

    def step_broken_off(self) -> None:
        """See `StepListener`."""
        self._end(f"step {self.steps} ended in an exception")

    def _begin(self, gradient: Parts) -> None:
        self._warm_start = has_state(self._optimizer, self._parameters)
        self._keep_state("initial_state", gradient)

    def _observe_end(self) -> None:
        assert self._hooks is not None
        assert self._recording is not None
        if not self._ended or self._ended.endswith("KeyboardInterrupt"):
            self._recording.observe_end(View(self._problem, self.steps, self._times[-1], self._hooks.theta()))
            if self.steps:
                self._keep_state("final_state", None)

    def _keep_state(self, name: str, gradient: Parts | None) -> None:
        assert self._hooks is not None
        if self._save_every is not None and self._known is not None and self._known.stateful:
            whole = whole_state(self._known, self._hooks, gradient, warm=self._warm_start)
            if whole is not None:
                self._states[name] = whole

    def _end(self, why: str) -> None:
        self._ended = self._ended or why

    def _memory(self, name: str) -> Parts:
        assert self._hooks is not None
        if self._known is None:
            return self._hooks.state(name)
        theirs, has = self._known.torch_memory[name], self._known.state_layout(self._layout.size).names
        try:
            return self._hooks.state(theirs)
        except KeyError:
            if name not in has:
                raise
            return self._hooks.parts([None] * len(self._parameters))  # no gradient yet

    def _info(self) -> RunInfo:
        assert self._conditions is not None
        known = self._known
        if known is not None and self.steps and not any(lr == known.lr for lr in self._lrs):
            # Never the one from which a scheduler started: the first that moved anything.
            changed: Any = known  # a dataclass
            known = replace(changed, lr=next((lr for lr in self._lrs if lr > 0), known.lr))
        grid = TimeGrid(
            np.array(self._lrs), np.array(self._times), "full" if self._full_batch else "unknown", 0, 0
        )
        return RunInfo(
            optimizer=type(self._optimizer if known is None else known).__name__,
            hyperparameters=plain_hyperparameters(self._optimizer)
            if known is None
            else hyperparameters(known),
            optimizer_text=type(self._optimizer).__name__ if known is None else describe(known),
            time_per_step=max([*self._lrs[:1], 0.0]) if known is None else known.time_per_step,
            stateful=known is None or known.stateful,
            warm_start=self._warm_start,
            grid=grid,
            layout=self._layout,
            remarks=() if self._processes == 1 else (_PART_OF_LOSS.format(self._processes),),
            beyond_laws=self._why_unknown or self._conditions.beyond_laws,
            message=self._ended,
        )
