"""The recorder: what a user adds to a training loop of their own."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from nm_ode.arguments import as_count, said
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
from nm_ode.recorder.going_on import Place, Resume, digest_of, require_resume, stopped_at
from nm_ode.recorder.hooks import StepHooks
from nm_ode.recorder.known import known_optimizer, plain_hyperparameters
from nm_ode.recorder.stored import OnError, StoredRun, facts_of, require_on_error
from nm_ode.results import RunInfo, TimeGrid, annotate, open_run, write_run_info


class Recorder:
    """Records a training loop of the user's own: one `with` line, and the loop as it was.

        with nm_ode.Recorder(model, optimizer, "run.zarr", observe=[nm_ode.Charges(symmetries)]) as recorder:
            for x, y in batches:
                optimizer.zero_grad()
                loss = loss_fn(model(x), y)
                loss.backward()
                recorder.loss(loss)
                optimizer.step()

    Args:
        model: the module that is trained, compiled or within DistributedDataParallel too.
        optimizer: any torch optimiser.
        store: where to write; None keeps the run in memory, for `run`.
        observe: what to record beside the losses and norms of every run, as in `train`.
        save_every: theta is kept at steps 0, save_every, …; None keeps none.
        problem: the loss, for observers that evaluate it; None where none does.
        full_batch: did each step see all samples? Flows of the whole loss are then compared without a remark.
        on_error: what happens when the store cannot be written any more: "stop recording" says so once and lets the
            loop go on, "raise" raises StoreError in it.
        resume: go on with the run in the store: what `state_dict` gave, kept in the loop's own checkpoint, or True for
            where the store was closed. What it has beyond that is dropped. The model must be as it was there before
            the recorder begins.

    Raises:
        ArgumentError: a model without parameters that the optimiser has, or what is no observer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        store: str | os.PathLike[str] | None = None,
        *,
        observe: Sequence[Observer] = (),
        save_every: int | None = None,
        problem: Problem | None = None,
        full_batch: bool = False,
        on_error: OnError = "stop recording",
        resume: Resume = False,
    ) -> None:
        self._model, self._optimizer = unwrapped(model), optimizer
        self._store = None if store is None else Path(store)
        self._stored: StoredRun | None = None
        self._on_error, self._resume = require_on_error(on_error), require_resume(resume)
        if self._store is None and self._resume is not False:
            raise ArgumentError("resume goes on with a run that is in a store: give its path as store")
        self._problem, self._full_batch = problem, full_batch
        self._save_every = None if save_every is None else as_count(save_every, "save_every")
        self._observers = require_observers(observe)
        named = _recorded_parameters(self._model, optimizer)
        self._parameters = list(named.values())
        self._layout = Layout.of_parameters(named)
        self._known = known_optimizer(optimizer)
        self._hooks: StepHooks | None = None
        self._recording: Recording | None = None
        self._losses: list[Tensor] = []
        self._lrs: list[float] = []
        self._times = [0.0]
        self._now = Place()
        self._view: View | None = None
        self.skipped_steps = 0

    def __enter__(self) -> Recorder:
        context = Context(
            given_problem=self._problem,
            optimizer=self._known,
            steps=OPEN_END,
            saved_steps=() if self._save_every is None else range(0, OPEN_END, self._save_every),
            device=self._parameters[0].device,
            given_layout=self._layout,
            loop=Loop(self._model),
        )
        kinds: list[type[Observer]] = [Losses, Norms]
        if self._save_every is not None:
            kinds.append(Trajectory)
        self._recording = Recording(
            [*(kind() for kind in kinds), *self._observers], context, streamed=self._store is not None
        )
        if self._store is not None:
            facts = facts_of(self._info(), self._recording, self._share)
            self._stored, self._now = StoredRun.begin(
                self._store, self._recording, facts, self._on_error, self._resume, list(self._parameters)
            )
            self.skipped_steps = self._now.skipped
        self._hooks = StepHooks(self._optimizer, self._layout, self._parameters, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._hooks is not None
        assert self._recording is not None
        self._hooks.remove()
        place = self._last_place()  # before what is observed at the end alone
        if error is None and not self._has_stopped:
            self._recording.observe_end(View(self._problem, self.steps, self._now.time, self._hooks.theta()))
        if self._stored is not None:
            self._stored.end(*place, "" if kind is None else kind.__name__)

    def loss(self, value: Tensor | float) -> None:
        """The loss whose gradient the next step takes; of several before one step, their mean is recorded."""
        if self._has_stopped:
            return
        tensor = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
        self._losses.append(tensor.reshape(()) if tensor.numel() == 1 else tensor.mean())

    def state_dict(self) -> dict[str, Any]:
        """Where the recording is, for the loop's own checkpoint and `resume`; call it between two steps.

        All that was recorded until then is on the disk when this returns.

        Raises:
            ArgumentError: an observer remembers what cannot be kept.
        """
        assert self._recording is not None
        if self._stored is not None and not self._has_stopped:
            self._stored.save(self._now)
        if self._has_stopped:
            return stopped_at(self.steps)
        return self._place().state_dict

    def _place(self) -> Place:
        assert self._recording is not None
        trees, arrays = self._recording.memory()
        theta = digest_of(list(self._parameters))
        return replace(self._now, skipped=self.skipped_steps, theta=theta, trees=trees, arrays=arrays)

    def _last_place(self) -> tuple[Place, str]:
        """Where the recording is, and why it cannot be gone on with from there."""
        if self._stored is None:
            return self._now, ""
        try:
            return self._place(), ""
        except ArgumentError as error:
            return self._now, str(error)

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return self._now.steps

    @property
    def run(self) -> xr.Dataset:
        """What was recorded, as `train` gives it."""
        assert self._recording is not None
        if self._stored is not None:
            return open_run(self._stored.path)
        made = self._recording.dataset()
        return annotate(write_run_info(made, self._info()))

    # -- StepListener

    def loss_of_closure(self, value: Any) -> None:
        """See `StepListener`."""
        if not self._losses and value is not None:
            self.loss(value)

    def before_step(self, gradient: Parts) -> None:
        """See `StepListener`."""
        assert self._hooks is not None
        assert self._recording is not None
        if self._has_stopped:
            return
        loss = (
            torch.stack([loss.to(gradient.device) for loss in self._losses]).mean() if self._losses else None
        )
        self._losses = []
        nan = gradient.new_zeros(()) + math.nan
        lr = float(self._optimizer.param_groups[0]["lr"])
        self._view = View(
            self._problem,
            self.steps,
            self._now.time,
            self._hooks.theta(),
            lr=lr,
            loss_and_gradient=lambda: (nan if loss is None else loss, gradient),
            memory=self._memory,
        )
        self._recording.observe(self._view)

    def after_step(self, update: Parts) -> None:
        """See `StepListener`."""
        if self._has_stopped:
            return
        assert self._view is not None
        assert self._recording is not None
        self._view.take_update(update)
        self._recording.observe_update(self._view)
        now, lr = self._now, self._view.lr
        self._now = Place(now.steps + 1, now.time + lr * self._share, self.skipped_steps)
        if self._stored is None:
            self._lrs.append(lr)
            self._times.append(self._now.time)
        else:
            self._stored.after_step(lr, self._now)

    def step_skipped(self) -> None:
        """See `StepListener`."""
        self.skipped_steps += 1

    @property
    def _share(self) -> float:
        """Flow time of a step with learning rate 1."""
        return 1.0 if self._known is None else self._known.time_per_step / self._known.lr

    @property
    def _has_stopped(self) -> bool:
        return self._stored is not None and self._stored.stopped

    def _memory(self, name: str) -> Parts:
        assert self._hooks is not None
        return self._hooks.state(name if self._known is None else self._known.torch_memory[name])

    def _info(self) -> RunInfo:
        known = self._known
        grid = TimeGrid(
            np.array(self._lrs), np.array(self._times), "full" if self._full_batch else "unknown", 0, 0
        )
        return RunInfo(
            optimizer=type(self._optimizer if known is None else known).__name__,
            hyperparameters=plain_hyperparameters(self._optimizer)
            if known is None
            else hyperparameters(known),
            optimizer_text=type(self._optimizer).__name__ if known is None else describe(known),
            time_per_step=float(self._optimizer.param_groups[0]["lr"])
            if known is None
            else known.time_per_step,
            stateful=known is None or known.stateful,
            warm_start=False,
            grid=grid,
            layout=self._layout,
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, without torch.compile's and DistributedDataParallel's wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _recorded_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    mine = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: p for name, p in model.named_parameters() if p.requires_grad or id(p) in mine}
    if not mine & {id(parameter) for parameter in found.values()}:
        raise ArgumentError(
            f"the optimiser has no parameter of this {said(type(model).__name__)}: give the model that it trains"
        )
    return found
