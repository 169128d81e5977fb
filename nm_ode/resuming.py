"""A training that is kept while it runs, and goes on from there: bit for bit as if it had never been broken off."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem, problem_identity
from nm_ode.observers import Recording
from nm_ode.observers.memory import in_part, packed, unpacked
from nm_ode.optimizers import Optimizer, hyperparameters
from nm_ode.optimizers.steppers import Stepper
from nm_ode.results import TimeGrid
from nm_ode.results.checkpoints import Checkpoint, CheckpointFile, Segment, digest

_AGREE = {torch.float64: 1e-9, torch.float32: 1e-4}  # one gradient by other threads or another build of torch


class KeptTraining:
    """The checkpoint of one training; without one it does nothing.

    Args:
        checkpoint: where; None for nowhere.
        theta, state: where the training starts, as of `train`.
        save_every: as of `train`.
        stepper, recording, states: what moves while it trains.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        problem: Problem,
        optimizer: Optimizer,
        grid: TimeGrid,
        theta: Tensor,
        state: Tensor | None,
        save_every: int,
        stepper: Stepper,
        recording: Recording,
        states: dict[str, Tensor],
    ) -> None:
        self._file: CheckpointFile | None = None
        if checkpoint is None:
            return
        self._problem, self._grid, self._start = problem, grid, theta
        self._stepper, self._recording, self._states = stepper, recording, states
        self._step, self._whole, self._saved, self._settle = 0, False, 0, _nothing
        self._probe: list[float] = []
        self._generators = _generators()
        try:
            observers = recording.identity
        except ArgumentError as error:
            checkpoint.say(f"training: no checkpoint is kept: {error}")
            return
        belongs = {
            "kind": "training",
            "steps": grid.steps,
            "optimizer": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
            "hyperparameters": {name: repr(value) for name, value in hyperparameters(optimizer).items()},
            "learning rates": digest(grid.lr, grid.times),
            "batches": [grid.batch_size, grid.seed],
            "saved steps": save_every,
            "start": digest(_array(theta), np.empty(0) if state is None else _array(state)),
            **problem_identity(problem),
            "observers": observers,
        }
        self._file = CheckpointFile(checkpoint, "training", belongs)

    def go_on(self) -> int:
        """The step from which to go on, all else being as it was before it; 0 if nothing was kept."""
        if self._file is None:
            return 0
        last: Segment | None = None
        for segment in self._file.segments():
            if last is None and not self._is_of_this_loss(segment.facts["probe"]):
                self._file.refuse("what was kept is of another loss, or of other data")
                return 0
            self._take_rows(segment)
            last = segment
        if last is None:
            return 0
        facts, state = last.facts, last.state
        self._stepper.restore(
            {name: torch.from_numpy(part) for name, part in in_part("stepper/", state).items()}
        )
        self._recording.restore(facts["memory"], in_part("observers/", state))
        _restore_generators(unpacked(facts["generators"], list(in_part("generators/", state).values())))
        self._step = self._saved = int(facts["step"])
        self._probe = list(facts["probe"])
        there, here = facts["made by"], _environment()
        others = ", ".join(f"{name} {there[name]}" for name in here if there.get(name) != here[name])
        self._file.say(
            f"goes on from step {self._step} of {self._grid.steps}"
            + (f"; up to there it ran with {others}, so that the last digits may differ" if others else "")
        )
        return self._step

    def first(self, loss: Tensor, gradient: Tensor) -> None:
        """The first step's loss and gradient, by which the checkpoint will be known."""
        if self._file is not None:
            self._probe = _probe(loss, gradient)

    def at(self, step: int, settle: Callable[[], None], *, ending: bool = False) -> None:
        """Between two steps: save if it is time.

        Args:
            settle: raises if one of the steps before was not well.
        """
        if self._file is None:
            return
        self._step, self._settle, self._whole = step, settle, True
        if step > self._saved and self._file.due(ending=ending):
            settle()
            self._save()

    def leave(self) -> None:
        """In the middle of a step nothing can be kept."""
        self._whole = False

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Within this block an exception, Ctrl-C too, costs no more than the step that it comes in."""
        try:
            yield
        except BaseException:
            if (
                self._file is not None
                and self._whole
                and self._step > self._saved
                and self._file.due(ending=True)
            ):
                try:
                    self._settle()
                except Exception:  # what was raised says more than that the steps before were not well
                    raise
                else:
                    self._save()
            raise

    def _save(self) -> None:
        assert self._file is not None
        try:
            trees, remembered = self._recording.memory()
        except ArgumentError as error:
            self._file.give_up(str(error))
            return
        changed = {name: now for name, now in _generators().items() if not _same(now, self._generators[name])}
        generators, arrays = packed(changed)
        facts = {
            "step": self._step,
            "probe": self._probe,
            "made by": _environment(),
            "memory": trees,
            "generators": generators,
        }
        state = {
            **{f"stepper/{name}": _array(part) for name, part in self._stepper.snapshot().items()},
            **{f"observers/{name}": part for name, part in remembered.items()},
            **{f"generators/{i}": part for i, part in enumerate(arrays)},
        }
        if self._file.save(facts, state, self._rows):
            self._saved = self._step

    def _rows(self, all_of_them: bool) -> dict[str, np.ndarray]:
        found = {f"observers/{k}": rows for k, rows in self._recording.rows(all_of_them=all_of_them).items()}
        if "initial_state" in self._states and (all_of_them or not self._saved):
            found["initial_state"] = _array(self._states["initial_state"])[None]
        return found

    def _take_rows(self, segment: Segment) -> None:
        rows = dict(segment.rows)
        if "initial_state" in rows:
            self._states["initial_state"] = torch.from_numpy(rows.pop("initial_state")[0])
        self._recording.take_rows(in_part("observers/", rows))

    def _is_of_this_loss(self, probe: list[float]) -> bool:
        loss, gradient = self._problem.loss_and_grad(self._start, next(self._grid.each_batch()))
        return bool(
            np.allclose(probe, _probe(loss, gradient), rtol=_AGREE.get(self._problem.dtype, 1e-4), atol=0)
        )


def _probe(loss: Tensor, gradient: Tensor) -> list[float]:
    """A few numbers that another loss, model or batch does not have."""
    norm = float(torch.linalg.vector_norm(gradient))
    weights = torch.arange(gradient.numel(), device=gradient.device).remainder_(7).add_(1).to(gradient.dtype)
    return [float(loss), norm, float(gradient.abs() @ weights)]


def _environment() -> dict[str, str]:
    return {"torch": str(torch.__version__), "threads": str(torch.get_num_threads())}


def _generators() -> dict[str, Any]:
    """The states of the generators that an observer may draw from."""
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002 (the global one is what an observer would draw from)
        "random": random.getstate(),
    }
    if torch.cuda.is_initialized():
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def _restore_generators(states: Mapping[str, Any]) -> None:
    setters: dict[str, Callable[[Any], object]] = {
        "torch": torch.set_rng_state,
        "numpy": np.random.set_state,
        "random": random.setstate,
        "cuda": torch.cuda.set_rng_state_all,
    }
    for name, state in states.items():
        setters[name](state)


def _same(one: Any, other: Any) -> bool:
    (tree, arrays), (other_tree, others) = packed(one), packed(other)
    return tree == other_tree and all(map(np.array_equal, arrays, others))


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())


def _nothing() -> None:
    """Nothing to settle."""
