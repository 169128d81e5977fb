"""Flows beside a run on minibatches (THEORY.md §4): of the loss over all samples, or of each step's own batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from nm_ode.data import BatchSize, sample_batches
from nm_ode.flows.base import Flow
from nm_ode.loss import Problem


@dataclass(frozen=True, eq=False)
class MinibatchFlow:
    """During step k the field is that of batch k's loss: its distance to the run is discretisation error alone.

    THEORY.md's (i). The field jumps from step to step, so that it is solved step by step: one step of an eighth-order
    method each, and the same at half the step beside it, whose distance is the solver's error. Any other flow is
    THEORY.md's (ii), a full-batch flow: beside a run on minibatches its distance holds the batches' noise too, does
    not shrink like lr^order, and says nothing about the flow's order.

    An optimiser that remembers more than theta is followed less well: each change of batch starts a transient of its
    velocity or moments, of which a flow of order K knows (1−β)^K (see `IteratedMapFlow`).

    Args:
        flow: any other flow.
        batch_size, seed: as `train` was given them.
        steps: how many steps the run has.
        time_per_step: how long each batch is in force, in flow time.
    """

    flow: Any  # a Flow that is a dataclass, whose problem can be replaced
    batch_size: BatchSize
    seed: int
    steps: int
    time_per_step: float

    @classmethod
    def beside(cls, flow: Flow, run: xr.Dataset) -> MinibatchFlow:
        """For a run of `train`."""
        attrs = run.attrs
        return cls(flow, attrs["batch_size"], attrs["seed"], run.sizes["step"], attrs["time_per_step"])

    @property
    def name(self) -> str:
        return f"same_batch_{self.flow.name}"

    @property
    def title(self) -> str:
        return f"same-batch {self.flow.title}"

    @property
    def problem(self) -> Problem:
        problem: Problem = self.flow.problem
        return problem

    @property
    def expected_order(self) -> int:
        return int(self.flow.expected_order)

    @property
    def depends_on_lr(self) -> bool:
        return bool(self.flow.depends_on_lr)

    @property
    def gradients_per_rhs(self) -> int:
        return int(self.flow.gradients_per_rhs)

    @property
    def hvps_per_rhs(self) -> int:
        return int(self.flow.hvps_per_rhs)

    @property
    def third_derivatives_per_rhs(self) -> int:
        return int(self.flow.third_derivatives_per_rhs)

    @property
    def jumps(self) -> np.ndarray:
        """Flow times of the steps' starts, shape (steps,); during step k the field is that of `during(k)`."""
        return np.arange(self.steps) * self.time_per_step

    @cached_property
    def _batches(self) -> list[Tensor | None]:
        return list(islice(sample_batches(self.problem.n_samples, self.batch_size, self.seed), self.steps))

    def during(self, step: int) -> Flow:
        """The flow in force during a step of the run."""
        flow: Flow = replace(self.flow, problem=self.problem.subset(self._batches[step]))
        return flow

    def rhs(self, t: float, state: Tensor) -> Tensor:
        """The field at a time within a step; at a step's ends it jumps, and a solver takes `during(step).rhs`."""
        step = int(np.clip(np.floor(t / self.time_per_step), 0, self.steps - 1))
        return self.during(step).rhs(t, state)

    def state_from(self, theta: Tensor, memory: Tensor | None = None) -> Tensor:
        """At rest an optimiser looks at its first batch."""
        return self.during(0).state_from(theta, memory)

    def theta_in(self, state: Tensor) -> Tensor:
        theta: Tensor = self.flow.theta_in(state)
        return theta

    def scale(self, state: Tensor) -> Tensor | None:
        return self.during(0).scale(state)


def name_and_title(flow: Flow, batch_size: BatchSize) -> tuple[str, str]:
    """The flow's, which beside a run on minibatches say over which samples its loss is."""
    if batch_size == "full" or isinstance(flow, MinibatchFlow):
        return flow.name, flow.title
    return f"full_batch_{flow.name}", f"full-batch {flow.title}"
