"""Where a solve starts, and the times at which it is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from bridges import require_times
from nm_ode.arguments import as_real, as_vector, require_unmasked, said
from nm_ode.errors import ArgumentError
from nm_ode.flows import Flow, FlowError, follow_batches
from nm_ode.loss.expected import ExpectedLoss
from nm_ode.results import ResultError, RunInfo, run_info
from nm_ode.sketches import SparseSigns

_SAME = 1e-12  # over the norm: two sketches of one theta differ in the order of sums at most


@dataclass(eq=False)
class Start:
    """Sample times, the flow and its state at the first, and the run that they are of, if of one.

    Attributes:
        flow: the one that is solved: beside minibatches that of the loss which a batch has on average.
        state: in the problem's dtype, on its device; not to be written to: it may be the problem's theta0.
        expected: that loss, of a full-batch flow beside minibatches.
    """

    times: NDArray[np.float64]
    flow: Flow
    state: Tensor
    run: RunInfo | None = None
    warm: bool = False  # with the state of an optimiser under way
    expected: ExpectedLoss | None = None

    def take_state(self) -> Tensor:
        """The state, which is not held here any longer: it is large."""
        state, self.state = self.state, self.state[:0].clone()
        return state


def start_of(flow: Flow, t: Any, theta0: Any) -> Start:
    """From a run of `train` (its saved times and start), or from times.

    Args:
        theta0: a vector of any kind; None for the run's or the problem's; beside a run that kept sketches alone the
            problem's, if the first of them is of it.

    Raises:
        EngineError: times that no engine takes (see `bridges.require_times`).
        ArgumentError: what is no times, a dataset that is no run, a run without a saved step, or a theta0 of another
            shape or with values that are not finite.
        FlowError: a flow of one learning rate beside a run whose learning rate changes; or one that needs the
            optimiser's state beside a run whose first steps were cut off.
        ProblemError: a loss that sums over other samples than the run's batches.
    """
    if not isinstance(t, xr.Dataset):
        times = _times(t)
        given = flow.problem.theta0 if theta0 is None else theta0
        what = "the model's theta0" if theta0 is None else "theta0"
        return Start(times, flow, flow.state_from(_placed(flow, given, what, copy=theta0 is not None)))
    sketched = "theta_sketch" in t.variables and "theta" not in t.variables
    for name in ("saved_time", "theta_sketch" if sketched else "theta"):
        if name not in t.variables:
            raise ArgumentError(f"t: {_without(t, name)}")
    try:
        info = run_info(t)
    except ResultError as error:
        raise ArgumentError(f"t: {error}") from None
    if not t.sizes["saved_step"]:
        raise ArgumentError(
            f"t: the run has no saved step to start from; {info.message or 'all were cut off'}"
        )
    if flow.depends_on_lr and not info.grid.is_constant:
        lrs = info.grid.lr
        raise FlowError(
            f"{flow.title} is that of a constant lr; this run's lr goes from {lrs.max():g} to {lrs.min():g}: solve "
            "gradient flow, or train without a schedule"
        )
    if flow.lr is not None and not np.allclose(info.grid.lr[:1], flow.lr, rtol=1e-9, atol=0):
        raise FlowError(
            f"{flow.title} is that of lr = {flow.lr:g}, and this run has lr = {info.grid.lr[0]:g}: give the flow the "
            "run's own optimiser, or solve at times instead of beside the run"
        )
    if flow.follows_average and not info.grid.is_full_batch:
        raise FlowError(
            f"{flow.title} is that of steps on all samples; this run's are on batches of {info.grid.batch_size}: solve "
            "gradient flow or a modified flow, or train on the full batch"
        )
    _require_same_optimizer(flow, info)
    memory, what, given = None, "theta0", theta0 is not None
    if theta0 is None:
        what = "the run's first theta"
        if "initial_state" in t:
            memory = torch.from_numpy(t["initial_state"].values.copy()).to(flow.problem.theta0)
        if not sketched:
            theta0 = torch.from_numpy(t["theta"].isel(saved_step=0).values.copy())
        else:
            theta0 = _first_of_sketches(flow, t, memory)
    times = _times(t["saved_time"].values)
    start = _placed(flow, theta0, what, copy=given)
    flow, expected = follow_batches(flow, info.grid, start)
    state, first = flow.state_from(start, memory), int(t["saved_step"].values[0])
    if memory is not None and first > 0 and len(state) > len(start):
        raise FlowError(
            f"{flow.title} starts with the optimiser's state, which is kept of step 0, and this run begins at step "
            f"{first}: solve from step 0, or train from there with state0"
        )
    return Start(times, flow, state, info, info.warm_start and memory is not None, expected)


def _first_of_sketches(flow: Flow, run: xr.Dataset, memory: Tensor | None) -> Tensor:
    """Where a run began that kept sketches alone: in its optimiser's state, or the problem's theta0, if they are of it.

    Raises:
        ArgumentError: it is not known.
    """
    if int(run["saved_step"].values[0]):
        raise ArgumentError(
            "t: the run's first steps were cut off, and of later ones it kept sketches alone: give theta0"
        )
    if memory is not None:
        return memory[: flow.problem.layout.size]
    problem, parts = flow.problem, int(run["sketch_parts"])
    there = np.asarray(run["theta_sketch"].values[0])
    m, seed = len(there) // parts, int(run["sketch_seed"])
    signs = SparseSigns(problem.layout, m, seed, problem.device, by_layer=parts > 1)
    here = signs.of(problem.theta0).cpu().numpy()
    if here.shape != there.shape or np.linalg.norm(here - there) > _SAME * np.linalg.norm(there):
        raise ArgumentError(
            "t: the run kept sketches of theta alone, and did not start from the problem's theta0: give theta0, the "
            "parameters that it started with"
        )
    return problem.theta0


def _without(t: xr.Dataset, name: str) -> str:
    try:
        run_info(t)
    except ResultError:
        return f"a dataset without {name!r} is not a run of nm_ode.train"
    return f"the run kept no {name!r} to set a flow beside: record it with Recorder(…, save_every=1)"


def _times(t: Any) -> NDArray[np.float64]:
    if isinstance(t, Tensor):
        t = as_real(t, "t")
        # NumPy has no bfloat16; float64 holds all of it.
        t = (t.double() if t.is_floating_point() else t).cpu().numpy()
    require_unmasked(t, "t")
    try:
        times = np.asarray(t)
        if times.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError):
        raise ArgumentError(f"t must be a run, or times in one dimension; {said(t)} was given") from None
    if times.ndim == 0:
        raise ArgumentError(
            f"t must be a run, or times in one dimension, such as [0, {times:g}]; {times:g} was given"
        )
    if times.ndim != 1 or not times.size:
        raise ArgumentError(f"t must be a run, or times in one dimension; shape {times.shape} was given")
    return require_times(times)


def _require_same_optimizer(flow: Flow, info: RunInfo) -> None:
    """All of a run's optimiser enters a flow of one learning rate, and its weight decay any other flow.

    Raises:
        FlowError: the flow is that of another.
    """
    optimizer = flow.update_map
    if optimizer is None:
        return
    name, there = type(optimizer).__name__, info.hyperparameters
    remedy = "give the flow the run's own optimiser, or solve at times instead of beside the run"
    if flow.depends_on_lr and name != info.optimizer:
        raise FlowError(f"{flow.title} is that of {name}, and this run is of {info.optimizer}: {remedy}")
    for key in there if flow.depends_on_lr else ("weight_decay",):
        here = getattr(optimizer, key, None)
        run = there.get(key)
        if key != "lr" and here is not None and run is not None and not np.array_equal(here, run):
            raise FlowError(f"{flow.title} is that of {key} = {here}, and this run has {run}: {remedy}")


def _placed(flow: Flow, theta: Any, what: str, *, copy: bool) -> Tensor:
    """On the problem's device, in its dtype.

    Args:
        copy: is it the caller's, who may write to it while it is solved?

    Raises:
        ArgumentError: no vector of theta's shape, or values that are not finite; says which of `what`.
    """
    found = as_vector(theta, what, flow.problem.theta0, finite=True)
    return found.clone() if copy else found
