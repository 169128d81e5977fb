"""What a solver gives at the sample times, and whom it is handed to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import xarray as xr
from torch import Tensor

from bridges import OdeProblem
from bridges.vectors import Vector
from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem
from nm_ode.observers import Context, Observer, Recording, View
from nm_ode.solving.field import Field


class Samples:
    """Hands each sample to the observers, and lets the state go.

    Args:
        problem: the user's, which a flow beside minibatches may have replaced by a share of it.

    Attributes:
        device: where observers see theta: where the state lies, for an engine that takes it there; else the CPU.
        recording: what they record.
    """

    def __init__(
        self,
        problem: Problem,
        field: Field,
        ode: OdeProblem,
        observers: Sequence[Observer],
        on_sample: Callable[[int], None] | None,
    ) -> None:
        self._problem, self._field, self._on_sample, self._done = problem, field, on_sample, 0
        self.device = ode.y0.device if isinstance(ode.y0, Tensor) else torch.device("cpu")
        context = Context(
            given_problem=problem,
            optimizer=None,
            steps=0,
            saved_steps=(),
            along_flow=True,
            device=self.device,
        )
        self.recording = Recording(observers, context, samples=ode.times.size)

    def __call__(self, index: int, t: float, y: Vector) -> None:
        """One sample.

        Raises:
            ArgumentError: an observer wrote to theta, which is the solver's own.
        """
        written = y._version if isinstance(y, Tensor) else 0
        self.recording.observe(
            View(self._problem, index, t, self._field.theta(y), state=lambda: self._field.state(y).clone())
        )
        if isinstance(y, Tensor) and y._version != written:
            raise ArgumentError(
                "an observer wrote to view.theta, which is the solver's own state: let it work on a copy"
            )
        self.begin_at(index + 1)

    def begin_at(self, done: int) -> None:
        """So many samples are recorded."""
        self._done = done
        if self._on_sample is not None and done:
            self._on_sample(done)

    def dataset(self) -> xr.Dataset:
        """The samples that are complete: an exception may have come in the middle of one."""
        return self.recording.dataset(before=self._done)
