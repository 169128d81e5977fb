"""Flows beside minibatches (docs/theory.md §4.8): of the loss over all samples, or of each step's own batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.flows.base import Cost, Flow, FlowError, UpdateMap, require_flow
from nm_ode.loss import Problem
from nm_ode.loss.expected import ExpectedLoss, augmented_otherwise, expected_loss
from nm_ode.required import require_dataset
from nm_ode.results import Beside, TimeGrid, run_info


@dataclass(frozen=True, eq=False)
class MinibatchFlow(Flow):
    """During step k the field is that of batch k's loss: its distance to the run is discretisation error alone.

    docs/theory.md §4.8 (i). The field jumps from step to step, so that it is solved step by step: one step of an
    eighth-order method each, and the same at half the step beside it, whose distance is the solver's own error. Any
    other flow is a full-batch flow (ii): beside a run on minibatches it is that of the loss which a batch has on
    average (`follow_batches`), its distance holds the batches' noise too, does not shrink like lr^order, and says
    nothing about the flow's order.

    A stateful optimiser is followed less well: each change of batch starts a transient of its velocity or moments, of
    which a flow of order K knows (1−β)^K (see `IteratedMapFlow`).

    Args:
        flow: any other flow.
        grid: of the run: when each batch is in force, and which samples it has.

    Raises:
        FlowError: the run was on other data, or the flow is one of each step's own samples already.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.02)
        >>> run = nm_ode.train(problem, sgd, steps=10, batch_size=64)
        >>> same_batch = nm_ode.MinibatchFlow.beside(nm_ode.GradientFlow(problem), run)
        >>> nm_ode.solve_info(nm_ode.solve(same_batch, run)).title
        'same-batch gradient flow'
    """

    flow: Any  # a Flow that is a dataclass, whose problem can be replaced
    grid: TimeGrid

    def __post_init__(self) -> None:
        require_flow(self.flow)
        if not isinstance(self.grid, TimeGrid):
            raise ArgumentError(
                f"grid must be a run's, as MinibatchFlow.beside(flow, run) takes it; {said(self.grid)} was given"
            )
        if self.flow.jumps is not None:
            raise FlowError(f"{self.flow.title} takes each step's own samples already: give the flow itself")
        if self.flow.follows_average:
            raise FlowError(
                f"{self.flow.title} is that of steps on all samples, about whose average a run oscillates; each batch "
                "has another: take the flow itself, or another flow"
            )
        if self.grid.n_samples != self.problem.n_samples:
            raise FlowError(
                f"the run is on {self.grid.n_samples} samples and the flow's problem on {self.problem.n_samples}: "
                "a same-batch flow needs the run's own problem"
            )
        if otherwise := augmented_otherwise(self.problem, self.grid):
            raise FlowError(f"{otherwise}: a same-batch flow needs the run's own problem")

    @classmethod
    def beside(cls, flow: Flow, run: xr.Dataset) -> MinibatchFlow:
        """For a run of `train`."""
        require_dataset(run, "run", "nm_ode.train")
        return cls(flow, run_info(run).grid)

    @property
    def name(self) -> str:
        return f"same_batch_{self.flow.name}"

    @property
    def title(self) -> str:
        return f"same-batch {self.flow.title}"

    @property
    def problem(self) -> Problem:  # type: ignore[override]
        """That of the flow within, over all samples."""
        problem: Problem = self.flow.problem
        return problem

    @property
    def expected_order(self) -> int:
        return int(self.flow.expected_order)

    @property
    def depends_on_lr(self) -> bool:
        return bool(self.flow.depends_on_lr)

    @property
    def update_map(self) -> UpdateMap | None:
        found: UpdateMap | None = self.flow.update_map
        return found

    @property
    def lr(self) -> float | None:
        lr: float | None = self.flow.lr
        return lr

    @property
    def amplification(self) -> float:
        return float(self.flow.amplification)

    @property
    def cost(self) -> Cost:
        cost: Cost = self.flow.cost
        return cost

    @property
    def jumps(self) -> NDArray[np.float64]:
        """Flow times of the steps' starts, shape (steps,); from jumps[k] on the field is that of `during(k)`."""
        return self.grid.times[:-1]

    def during(self, piece: int) -> Flow:
        """The flow in force during a step of the run."""
        flow: Flow = replace(self.flow, problem=self.problem.subset(self.grid.batches[piece]))
        return flow

    def rhs(self, t: float, state: Tensor) -> Tensor:
        """The field at a time within a step; at a step's ends it jumps, and a solver takes `during(step).rhs`."""
        return self.during(self.grid.step_at(t)).rhs(t, state)

    def state_from(self, theta: Tensor, memory: Tensor | None = None) -> Tensor:
        """An optimiser at rest takes its initial state from the first batch's gradient."""
        return self.during(0).state_from(theta, memory)

    def theta_in(self, state: Tensor) -> Tensor:
        theta: Tensor = self.flow.theta_in(state)
        return theta

    def scale(self, state: Tensor) -> Tensor | None:
        return self.during(0).scale(state)

    def non_finite_remedy(self, *, warm_start: bool) -> str | None:
        remedy: str | None = self.flow.non_finite_remedy(warm_start=warm_start)
        return remedy


def beside_a_run(flow: Flow, *, full_batch: bool) -> tuple[str, str, Beside | None]:
    """Name, title and whose samples: beside a run on minibatches a flow says over which samples its loss is."""
    if full_batch:
        return flow.name, flow.title, None
    if flow.jumps is not None:
        return flow.name, flow.title, "same_batch"
    return f"full_batch_{flow.name}", f"full-batch {flow.title}", "full_batch"


def follow_batches(flow: Flow, grid: TimeGrid, theta: Tensor) -> tuple[Flow, ExpectedLoss | None]:
    """A full-batch flow beside a run on minibatches: that of the loss which a batch has on average.

    Over a batch of B of N samples a sum is on average B/N of the sum over all, and the run B/N as fast. A mean's flow
    stays as it is, and that of a loss which is neither too, with what its batches miss in expectation.

    Returns:
        The flow, and what it is of; None where it takes the run's own samples.

    Raises:
        FlowError: a flow whose problem cannot be replaced.
        ProblemError: a sum over other samples than the run's.
    """
    if grid.is_full_batch or flow.jumps is not None:
        return flow, None
    expected = expected_loss(flow.problem, grid, theta)
    if expected.problem is flow.problem:
        return flow, expected
    if "problem" not in getattr(flow, "__dataclass_fields__", {}):
        raise FlowError(
            f"{flow.title}: the loss sums over its samples, so beside minibatches the flow's problem is replaced by a "
            f"part of it, and {type(flow).__name__} is no dataclass with a field `problem`; make it one, or take a "
            "loss with reduction='mean'"
        )
    replaceable: Any = flow
    made: Flow = replace(replaceable, problem=expected.problem)
    return made, expected
