"""The recorder: what a user adds to a training loop of their own."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem
from nm_ode.observers import (
    OPEN_END,
    Observer,
    Recording,
    Sketch,
    View,
    as_save_every,
    require_observers,
    saved_steps,
    sketch_in_place_of_theta,
)
from nm_ode.parameters import Layout, Parts, unwrapped
from nm_ode.recorder.conditions import Conditions
from nm_ode.recorder.described import coarsest, described
from nm_ode.recorder.followed import (
    followed_parameters,
    process_of,
    require_module,
    require_optimizer_of_torch,
    require_problem_of,
)
from nm_ode.recorder.going_on import Place, Resume, require_resume, stopped_at
from nm_ode.recorder.hooks import StepHooks
from nm_ode.recorder.known import known_optimizer
from nm_ode.recorder.left import LeftGradients
from nm_ode.recorder.observing import always_observed, context_of, symmetries_of
from nm_ode.recorder.pending import PendingLosses
from nm_ode.recorder.states import has_state, memory_of, whole_state
from nm_ode.recorder.stored import OnError, StoredRun, require_on_error
from nm_ode.recorder.taken import Taken
from nm_ode.recorder.velocity import VelocityRule
from nm_ode.required import as_flag
from nm_ode.results import BeyondLaws, RunInfo, annotate, encode_run, open_run, write_run_info


class Recorder:
    """Records a training loop of the user's own: one `with` line, and the loop as it was.

    What it follows is what the optimiser moves: those of its parameters that are the model's and not frozen. A step is
    a call of `optimizer.step` that moves them: one that a GradScaler leaves out is none. The gradient is the one that
    the step takes: summed over several backward passes, unscaled, clipped, averaged over processes; a sparse one is
    made dense. Under DistributedDataParallel each process makes one, and the first records: the gradient of all, its
    own loss.

    Args:
        model: the module that is trained, compiled or within DistributedDataParallel too.
        optimizer: any torch optimiser.
        store: where to write; None keeps the run in memory, for `run`.
        observe: what to record beside the losses and norms of every run, as in `train`.
        save_every: theta is kept at steps 0, save_every, … and at the last, or at those of a list, with the first and
            the last, and the optimiser's whole state at the start and the end; with a `Sketch` in `observe` sketches of
            theta in place of both. None keeps none.
        follow_frozen: follow all parameters of the model, also those that are frozen or not in the optimiser yet.
        problem: the loss, for observers that evaluate it; None where none does.
        update_by_rule: take the update of torch's SGD with momentum as −lr·v, as it is before theta is rounded: without
            a copy of theta (on a CPU with a C compiler the difference needs none either), and with fewer reads. The
            first steps, and one in 256 later, are held against the difference.
        full_batch: did each step see all samples? Flows of the whole loss are then compared without a remark.
        on_error: what happens when the store cannot be written any more: "stop recording" says so once and lets the
            loop go on, "raise" raises StoreError in it.
        resume: go on with the run in the store: what `state_dict` gave, kept in the loop's own checkpoint, or True for
            where the store was closed. What it has beyond that is dropped. Model and optimiser must be as they were
            there before the recorder begins.

    Raises:
        ArgumentError: a model without parameters that the optimiser has, one whose parameters are spread over several
            devices or processes, or what is no observer.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with nm_ode.Recorder(model, optimizer) as recorder:
        ...     for _ in range(5):
        ...         optimizer.zero_grad()
        ...         loss = model(torch.ones(8, 3)).square().mean()
        ...         loss.backward()
        ...         recorder.loss(loss)
        ...         optimizer.step()
        >>> recorder, dict(recorder.run.loss.sizes)
        (<Recorder of Linear: 5 steps>, {'step': 5})
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        store: str | os.PathLike[str] | None = None,
        *,
        observe: Sequence[Observer] = (),
        save_every: int | Sequence[int] | None = None,
        follow_frozen: bool = False,
        problem: Problem | None = None,
        update_by_rule: bool = False,
        full_batch: bool = False,
        on_error: OnError = "stop recording",
        resume: Resume = False,
    ) -> None:
        self._process, self._processes = process_of(require_module(model))
        self._model, self._optimizer = unwrapped(model), require_optimizer_of_torch(optimizer)
        self._store = None if store is None else Path(store)
        self._stored: StoredRun | None = None
        self._on_error, self._resume = require_on_error(on_error), require_resume(resume, self._store)
        self._problem, self._full_batch = problem, as_flag(full_batch, "full_batch")
        self._follow_frozen = as_flag(follow_frozen, "follow_frozen")
        self._saved_steps = None if save_every is None else saved_steps(as_save_every(save_every), OPEN_END)
        self._observers = require_observers(observe)
        if self._saved_steps is None and any(isinstance(one, Sketch) for one in self._observers):
            raise ArgumentError("observe: a Sketch is taken at the saved steps: give save_every")
        self._keeps_theta = self._saved_steps is not None and not sketch_in_place_of_theta(self._observers)
        named = followed_parameters(self._model, self._optimizer, follow_frozen=self._follow_frozen)
        self._parameters = list(named.values())
        self._layout = Layout.of_parameters(named)
        self._rule = VelocityRule(self._optimizer, self._layout, self._parameters) if update_by_rule else None
        require_problem_of(problem, self._layout)
        self._what_is_known, self._named = known_optimizer(self._optimizer, self._parameters), named
        self._known = self._what_is_known.optimizer
        self._hooks: StepHooks | None = None
        self._recording: Recording | None = None
        self._conditions: Conditions | None = None
        self._pending = PendingLosses(self._is_in_step, self._is_told)
        self._taken = Taken.of(self._known, in_memory=self._store is None)
        self._left = LeftGradients()
        self._view: View | None = None
        self._states: dict[str, Tensor] = {}
        self._skipped = 0
        self._ended = ""
        self._warm_start = self._torn = self._closed = False

    def __repr__(self) -> str:
        return f"<Recorder of {type(self._model).__name__}: {self.steps} steps>"

    def __enter__(self) -> Recorder:
        if self._recording is not None:
            raise ArgumentError("a Recorder records one loop: make a new one for the next")
        known, symmetries = self._what_is_known, symmetries_of(self._observers)
        self._conditions = Conditions(self._optimizer, self._named, self._model, known, symmetries)
        groups, several = self._conditions.groups, len(self._optimizer.param_groups) > 1
        device = self._parameters[0].device
        of_charges = groups if several and known.is_sgd else None
        context = context_of(
            self._model, self._layout, self._known, self._problem, self._saved_steps, device, of_charges
        )
        rates_differ = self._follow_frozen or several
        always = always_observed(
            self._layout, groups, keeps_theta=self._keeps_theta, rates_differ=rates_differ
        )
        self._recording = Recording([*always, *self._observers], context, streamed=self._store is not None)
        if self._process == 0:
            if self._store is not None:
                self._conditions.go_on_from(self._begin_store(self._store))
            self._conditions.watch()
            self._hooks = StepHooks(self._optimizer, self._layout, self._parameters, self, self._rule)
            if self._rule is None:
                self._hooks.keep_theta_in(context.passes)
                if self._recording.sums_update:
                    self._hooks.foresee_in(context.passes, self._known, self._conditions.note)
            self._pending.watch(self._parameters)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._hooks is None or self._conditions is None or self._closed:
            return
        self._closed = True
        within_step = self._hooks.within_step
        self._hooks.settle()
        self._hooks.remove()
        self._conditions.remove()
        self._pending.stop(whole=kind is None and not within_step)
        if kind is not None:
            self._end(f"the loop ended in {kind.__name__}", torn=within_step)
        self._conditions.end(self.steps)
        place = Place() if self._stored is None else self._place()  # before what the end alone has
        if self._conditions.written:
            self._end("the parameters were written to after the last step: they are not kept as the end")
        elif (kind is None or issubclass(kind, KeyboardInterrupt)) and not within_step:
            self._observe_end()
        if self._stored is not None:
            self._stored.end(place, self.steps, torn=self._torn)
            self._heed_store(quietly=kind is not None)

    def loss(self, value: Tensor | float, *, add: bool = False) -> None:
        """The loss whose gradient the next step takes, without a GradScaler's factor.

        Of several before one step the mean is recorded: give each without the factor of an accumulation. What a closure
        returns is recorded by itself.

        Args:
            value: a scalar.
            add: record the sum of those before one step, for losses that are divided by their number already.

        Raises:
            ArgumentError: it comes after its step.
        """
        if self._process == 0 and not self._is_told() and not self._closed and not self._ended:
            self._pending.give(value, add=add)

    def state_dict(self) -> dict[str, Any]:
        """Where the recording is, for the loop's own checkpoint and `resume`; call it between two steps.

        All that was recorded until then is on the disk when this returns.

        Raises:
            ArgumentError: an observer remembers what cannot be kept.
        """
        if self._stored is not None and not self._ended:
            self._stored.save(self.steps)
            self._heed_store()
        if self._ended or self._process:
            return stopped_at(self.steps)
        place = self._place()
        if isinstance(place, ArgumentError):
            raise place
        return place.state_dict

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return self._taken.steps

    @property
    def skipped_steps(self) -> int:
        """Steps that a GradScaler left out, as far as it has been seen: by gradients that no step took."""
        return self._skipped + self._pending.dropped

    @property
    def run(self) -> xr.Dataset:
        """What was recorded, as `train` gives it.

        Raises:
            ArgumentError: nothing was, because the loop has not begun, or another process records it.
        """
        if self._recording is None or self._process:
            why = f"process {self._process} records nothing" if self._process else "no loop"
            raise ArgumentError(f"there is no run: {why}")
        if self._stored is not None:
            return open_run(self._stored.path)
        made = self._recording.dataset(before=self.steps if self._torn else None)
        whole = {name: ("state_index", one.cpu().numpy()) for name, one in self._states.items()}
        return annotate(write_run_info(made.assign(whole), self._info()))

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
            self._left.before_step(gradients)
            loss = self._pending.take(gradients, gradient.device, of_closure)
            if loss is None:
                loss = gradient.new_zeros(()) + math.nan
            if not self.steps:
                self._begin(gradient)
            self._view = View(
                self._problem,
                self.steps,
                self._taken.time,
                self._hooks.theta(),
                lr=lr,
                loss_and_gradient=lambda: (loss, gradient),
                memory=self._memory,
                hyperparameters=self._conditions.groups.settings[0],
                hold=self._left.hold,
            )
            self._recording.observe(self._view)
        except BaseException as error:
            self._end(f"recording ended in {type(error).__name__} at step {self.steps}", torn=True)
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
            self._end(f"recording ended in {type(error).__name__} at step {self.steps}", torn=True)
            raise
        self._conditions.after_step()
        self._pending.step_ended()
        self._taken.add(self._view.lr)
        if self._stored is not None:
            self._stored.after_step(self._view.lr, self.steps)
            self._heed_store()

    def step_skipped(self) -> None:
        """See `StepListener`."""
        self._skipped += 1
        self._pending.clear()

    def step_broken_off(self) -> None:
        """See `StepListener`."""
        self._end(f"step {self.steps} ended in an exception", torn=True)

    def _begin(self, gradient: Parts) -> None:
        self._warm_start = has_state(self._optimizer, self._parameters)
        self._keep_state("initial_state", gradient)

    def _observe_end(self) -> None:
        assert self._hooks is not None
        assert self._recording is not None
        if not self._ended or self._ended.endswith("KeyboardInterrupt"):
            theta = self._hooks.theta()
            self._recording.observe_end(View(self._problem, self.steps, self._taken.time, theta))
            if self.steps:
                self._keep_state("final_state", None)

    def _keep_state(self, name: str, gradient: Parts | None) -> None:
        assert self._hooks is not None
        if self._keeps_theta and self._known is not None and self._known.stateful:
            whole = whole_state(self._known, self._hooks, gradient, warm=self._warm_start)
            if whole is not None and self._stored is not None:
                self._stored.keep(name, whole)
            elif whole is not None:
                self._states[name] = whole

    def _begin_store(self, store: Path) -> BeyondLaws:
        """Begin a run there, or go on with it; `beyond_laws` of the steps that are there."""
        assert self._recording is not None
        self._stored, place = StoredRun.begin(
            store,
            self._recording,
            lambda: encode_run(self._info()),
            self._taken.share,
            self._parameters,
            on_error=self._on_error,
            resume=self._resume,
        )
        self._taken.steps, self._taken.time, self._skipped = place.steps, place.time, place.skipped
        return BeyondLaws.of_text(place.beyond_laws)

    def _heed_store(self, *, quietly: bool = False) -> None:
        if self._stored is not None and self._stored.stopped and self._ended != self._stored.stopped:
            self._ended = self._stored.stopped
            self._stored.tell(quietly=quietly)

    def _place(self) -> Place | ArgumentError:
        assert self._recording is not None
        assert self._conditions is not None
        laws = self._conditions.beyond_laws.text
        return Place.now(self._recording, self._parameters, self._taken, self.skipped_steps, laws)

    def _is_in_step(self) -> bool:
        return self._hooks is not None and self._hooks.within_step

    def _is_told(self) -> bool:
        return self._hooks is not None and self._hooks.told

    def _end(self, why: str, *, torn: bool = False) -> None:
        self._ended, self._torn = self._ended or why, self._torn or torn  # a step was seen in part

    def _memory(self, name: str) -> Parts:
        assert self._hooks is not None
        return memory_of(self._what_is_known.memory, self._hooks, name)

    def _info(self) -> RunInfo:
        assert self._conditions is not None
        return described(
            self._optimizer,
            self._known,
            self._taken,
            full_batch=self._full_batch,
            ended=self._ended,
            warm_start=self._warm_start,
            layout=self._layout,
            dtype=coarsest(self._parameters),
            processes=self._processes,
            groups_differ=self._what_is_known.why_not if self._what_is_known.is_sgd else "",
            beyond_laws=self._conditions.beyond_laws,
        )
