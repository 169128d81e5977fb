"""A ladder of learning rates: the case's run and flows at each, to the same final time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from torch import Tensor

from nm_ode.comparison import compare, defects, share_at_start
from nm_ode.flows import Flow
from nm_ode.loss.expected import BatchBias, batch_bias
from nm_ode.loss.nonsmooth import kinks
from nm_ode.observers import Curvature, KinkCrossings
from nm_ode.optimizers import Optimizer
from nm_ode.results import Beside, Checkpoint, LadderInfo, LadderPointInfo, annotate, write
from nm_ode.solving import SolveError, solve
from nm_ode.studies.build import Study
from nm_ode.studies.progress import Progress
from nm_ode.training import TrainingDiverged, final_state, train

_POINTS = 6  # of a run at which sharpness and crossings are measured
_KEEP = 2e7  # numbers of a path that are kept in memory, for the one-step defects
_ROUNDINGS = 10.0


def confounders(study: Study) -> LadderInfo:
    """What, apart from the flow, may change the observed order."""
    bias = _batch_bias(study)
    return LadderInfo(
        stateful=study.optimizer.stateful,
        warm_start=study.case.training.warm_steps > 0,
        fixed_step=study.case.solver.step is not None,
        batch_bias=None if bias is None else bias.distance,
        batch_bias_error=None if bias is None else bias.standard_error,
        kinks=kinks(study.problem),
    )


def _batch_bias(study: Study) -> BatchBias | None:
    """What batches miss in expectation, where the runs take some and a flow takes all samples."""
    problem, size = study.problem, study.case.training.batch_size
    if size == "full" or all(table.batches == "same" for table in study.case.flows):
        return None
    return (
        None if problem.reduction is not None else batch_bias(problem, problem.theta0, size, study.case.seed)
    )


def ladder_point(
    study: Study, lr: float, progress: Progress, kept: Callable[[str], Checkpoint | None] = lambda part: None
) -> xr.Dataset:
    """Train and solve at `lr`, to the case's final time.

    Args:
        kept: the checkpoint of a part: of its trainings, and of each flow.

    Returns:
        Dimensions `flow`, `layer`; scalar coordinate `lr`. `error`, `relative_error`, `layer_error` at the end,
        `solver_error`, NaN for a flow that was not solved or a run that diverged; `rounding`, below which an error is
        the run's own; `largest_normalised_sharpness`, `crossing_share` (mean over some steps), `start_share` of the
        one-step defects in the first tenth.
    """
    case, problem, optimizer = study.case, study.problem, study.at(lr)
    steps = round(case.training.steps * case.optimizer.lr / lr)
    keep_all = optimizer.stateful and steps * problem.layout.size <= _KEEP
    diverged = False
    try:
        run = train(
            problem,
            optimizer,
            steps,
            batch_size=case.training.batch_size,
            seed=case.seed,
            save_every=1 if keep_all else steps,
            state0=warm_state(study, optimizer, kept),
            observe=[
                *([Curvature(_POINTS)] if problem.has_hessian else []),
                *([KinkCrossings(_POINTS)] if kinks(problem) else []),
            ],
            on_step=progress(f"lr = {lr:g}: training", steps),
            checkpoint=kept("training"),
        )
    except TrainingDiverged as stopped:
        run, diverged = stopped.run, True
    found = []
    for flow in study.flows_beside(run, optimizer):
        one = _Point.unsolved(study, flow, run)
        if not diverged:
            report = progress(f"lr = {lr:g}: {one.title}", 2)
            one = _solve(one, study, flow, run, report, kept(one.name))
        found.append(one)
    theta = run["theta"].values[-1]
    point = xr.Dataset(
        {
            **{
                key: ("flow", np.array([getattr(one, key) for one in found]))
                for key in ("expected_order", "error", "relative_error", "solver_error", "start_share")
            },
            "layer_error": (("flow", "layer"), np.stack([one.layer_error for one in found])),
            "rounding": (
                (),
                _ROUNDINGS * np.finfo(theta.dtype).eps * float(np.linalg.norm(theta)) * math.sqrt(steps),
            ),
            "largest_normalised_sharpness": (
                (),
                _largest(run["normalised_sharpness"].values) if "normalised_sharpness" in run else math.nan,
            ),
            "crossing_share": (
                (),
                float(run["crossing_share"].mean()) if "crossing_share" in run else math.nan,
            ),
        },
        coords={
            "lr": lr,
            "flow": np.array([one.name for one in found], dtype=object),
            "flow_title": ("flow", np.array([one.title for one in found], dtype=object)),
            "beside": ("flow", np.array([one.beside or "" for one in found], dtype=object)),
            "layer": run["layer"].values,
        },
    )
    return annotate(write(point, LadderPointInfo(steps=steps, diverged=diverged)))


def warm_state(study: Study, optimizer: Optimizer, kept: Callable[[str], Checkpoint | None]) -> Tensor | None:
    """The state after the case's warm steps, as many as take the same time at this learning rate; None for none."""
    training = study.case.training
    if not training.warm_steps:
        return None
    steps = round(training.warm_steps * study.case.optimizer.lr / optimizer.lr)
    warmed = train(
        study.problem,
        optimizer,
        steps,
        batch_size=training.batch_size,
        seed=study.case.seed,
        save_every=steps,
        checkpoint=kept("warm"),
    )
    return final_state(warmed)


@dataclass(frozen=True)
class _Point:
    """One flow at one learning rate."""

    name: str
    title: str
    beside: Beside | None
    expected_order: int
    layer_error: np.ndarray
    error: float = math.nan
    relative_error: float = math.nan
    solver_error: float = math.nan
    start_share: float = math.nan

    @classmethod
    def unsolved(cls, study: Study, flow: Flow, run: xr.Dataset) -> _Point:
        name, title, beside = study.labels(flow)
        return cls(name, title, beside, flow.expected_order, np.full(run.sizes["layer"], math.nan))


def _solve(
    found: _Point,
    study: Study,
    flow: Flow,
    run: xr.Dataset,
    report: Callable[[int], None],
    checkpoint: Checkpoint | None,
) -> _Point:
    ends = run.isel(saved_step=[0, -1])
    if flow.map_order is not None:
        along = defects(run, flow.map_order)
        if along is not None:
            share = share_at_start(along["defect"].values, run.sizes["step"] // 10)
            found = replace(found, start_share=share)
    options = study.case.solver.options()
    try:
        solution = solve(
            flow, ends, **options, record=["theta"], check=True, on_sample=report, checkpoint=checkpoint
        )
    except SolveError:
        return found
    last = compare(ends, solution).isel(saved_step=-1)
    return replace(
        found,
        error=float(last["error"]),
        relative_error=float(last["relative_error"]),
        solver_error=float(last["solver_error"]),
        layer_error=last["layer_error"].values,
    )


def _largest(values: np.ndarray) -> float:
    return float(values.max()) if values.size else math.nan
