"""A training that is kept while it runs, and goes on from there: bit for bit as if it had never been broken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nm_ode.loss import Problem, problem_identity
from nm_ode.loss.randomness import generators
from nm_ode.observers import Recording
from nm_ode.observers.kept import RecordingFile, fingerprint
from nm_ode.observers.memory import in_part, packed, unpacked
from nm_ode.results.checkpoints import Checkpoint
from nm_ode.results.segments import Segment

_AGREE = {torch.float64: 1e-9, torch.float32: 1e-4}  # one gradient by other threads or another build of torch


class Moving(Protocol):
    """What takes the steps."""

    def snapshot(self) -> dict[str, Tensor]:
        """All that the next step depends on, bit for bit."""
        ...

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Go on from what `snapshot` gave."""
        ...


class KeptTraining:
    """The checkpoint of one training; without one it does nothing.

    Args:
        checkpoint: where; None for nowhere.
        what: "training", for sentences.
        belongs: what fixes the training beside its problem, as JSON has it; asked for if there is a checkpoint.
        probe: gives loss and gradient of the first step, by which the problem is known again.
        steps: how many the training has.
        moving, recording, states: what changes while it trains.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        what: str,
        problem: Problem,
        belongs: Callable[[], Mapping[str, Any]],
        probe: Callable[[], tuple[Tensor, Tensor]],
        steps: int,
        moving: Moving,
        recording: Recording,
        states: dict[str, Tensor],
    ) -> None:
        self._file: RecordingFile | None = None
        if checkpoint is None:
            return
        self._evaluated, self._agree = probe, _AGREE.get(problem.dtype, 1e-4)
        self._moving, self._states, self._steps = moving, states, steps
        self._step, self._whole, self._saved, self._settle = 0, False, 0, _nothing
        self._probe: list[float] = []
        self._generators = _states()  # that an observer may draw from
        self._file = RecordingFile.of(
            checkpoint, what, {"kind": what, **belongs(), **problem_identity(problem)}, recording
        )

    def go_on(self) -> int:
        """The step from which to go on, all else being as it was before it; 0 if nothing was kept."""
        if self._file is None:
            return 0
        last: Segment | None = None
        for segment in self._file.taken_up(
            lambda first: self._is_of_this_loss(first.facts["probe"]),
            "what was kept is of another loss, or of other data",
        ):
            if "initial_state" in segment.rows:
                self._states["initial_state"] = torch.from_numpy(segment.rows["initial_state"][0])
            last = segment
        if last is None:
            return 0
        facts, state = last.facts, last.state
        self._moving.restore(
            {name: torch.from_numpy(part) for name, part in in_part("stepper/", state).items()}
        )
        self._file.restore(last)
        states = unpacked(facts["generators"], list(in_part("generators/", state).values()))
        for generator in generators():
            if generator.name in states:
                generator.set(states[generator.name])
        self._step = self._saved = int(facts["step"])
        self._probe = list(facts["probe"])
        there, here = facts["made by"], _environment()
        others = ", ".join(f"{name} {there[name]}" for name in here if there.get(name) != here[name])
        self._file.say(
            f"goes on from step {self._step} of {self._steps}"
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
        changed = {
            one.name: one.get() for one in generators() if one.state() != self._generators.get(one.name)
        }
        drawn_from, arrays = packed(changed)
        facts = {
            "step": self._step,
            "probe": self._probe,
            "made by": _environment(),
            "generators": drawn_from,
        }
        state = {
            **{f"stepper/{name}": _array(part) for name, part in self._moving.snapshot().items()},
            **{f"generators/{i}": part for i, part in enumerate(arrays)},
        }
        if self._file.save_all(facts, state, self._rows):
            self._saved = self._step

    def _rows(self, all_of_them: bool) -> dict[str, np.ndarray]:
        if "initial_state" in self._states and (all_of_them or not self._saved):
            return {"initial_state": _array(self._states["initial_state"])[None]}
        return {}

    def _is_of_this_loss(self, probe: list[float]) -> bool:
        here = _probe(*self._evaluated())
        return bool(np.allclose(probe, here, rtol=self._agree, atol=0, equal_nan=True))


def _probe(loss: Tensor, gradient: Tensor) -> list[float]:
    """A few numbers that another loss, model or batch does not have."""
    return [*_array(loss).reshape(-1).tolist(), *fingerprint(_array(gradient).reshape(-1))]


def _environment() -> dict[str, str]:
    return {"torch": str(torch.__version__), "threads": str(torch.get_num_threads())}


def _states() -> dict[str, bytes]:
    return {generator.name: generator.state() for generator in generators()}


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())


def _nothing() -> None:
    """Nothing to settle."""
