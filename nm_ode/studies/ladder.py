"""One rung of a ladder: the case's run and flows at one learning rate, and what may spoil the order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from torch import Tensor

from nm_ode.comparison import compare, defects, share_at_start
from nm_ode.flows import Flow, IteratedMapFlow, name_and_title
from nm_ode.loss import Problem
from nm_ode.loss.nonsmooth import kinks
from nm_ode.observers import CrossingRecord, CurvatureRecord, spread_steps
from nm_ode.optimizers import Optimizer
from nm_ode.results.schema import annotate
from nm_ode.solving import SolveError, solve
from nm_ode.studies.build import flows_beside
from nm_ode.studies.case import Case
from nm_ode.training import TrainingDiverged, final_state, train

Progress = Callable[[str, int], Callable[[int], None]]

_POINTS = 6  # of a rung's path at which sharpness and crossings are measured
_KEEP = 2e7  # numbers of a path that are kept in memory, for the one-step defects
_ROUNDINGS = 10.0


def rung(case: Case, problem: Problem, lr: float, progress: Progress) -> xr.Dataset:
    """Train and solve at `lr`, to the case's final time.

    Returns:
        Dimensions `flow`, `layer`; scalar coordinate `lr`. `error`, `relative_error`, `layer_error` at the end,
        `solver_error`, NaN for a flow that was not solved or a run that diverged; `rounding`, below which an error is
        the run's own; `largest_normalised_sharpness`, `crossing_share` (mean over some steps), `start_share` of the
        one-step defects in the first tenth.
    """
    optimizer = case.optimizer.build(lr)
    steps = round(case.training.steps * case.optimizer.lr / lr)
    curvature = CurvatureRecord(problem, optimizer, spread_steps(steps, _POINTS))
    crossings = CrossingRecord(problem, spread_steps(steps - 1, _POINTS)) if kinks(problem) else None
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
            state0=warm_state(case, problem, optimizer),
            watches=[curvature, *([crossings] if crossings is not None else [])],
            on_step=progress(f"lr = {lr:g}: training", steps),
        )
    except TrainingDiverged as stopped:
        run, diverged = stopped.run, True
    found = [
        _Found.unsolved(flow, case, run)
        if diverged
        else _solve(
            flow, case, run, progress(f"lr = {lr:g}: {name_and_title(flow, case.training.batch_size)[1]}", 2)
        )
        for flow in flows_beside(case, problem, optimizer, run)
    ]
    theta = run["theta"].values[-1]
    rounding = _ROUNDINGS * np.finfo(theta.dtype).eps * float(np.linalg.norm(theta)) * math.sqrt(steps)
    sharpest = curvature.dataset(run)["normalised_sharpness"].values
    return annotate(
        xr.Dataset(
            {
                **{
                    key: ("flow", np.array([getattr(one, key) for one in found]))
                    for key in ("expected_order", "error", "relative_error", "solver_error", "start_share")
                },
                "layer_error": (("flow", "layer"), np.stack([one.layer_error for one in found])),
                "rounding": ((), rounding),
                "largest_normalised_sharpness": ((), sharpest.max() if sharpest.size else math.nan),
                "crossing_share": ((), crossings.mean if crossings is not None else math.nan),
            },
            coords={
                "lr": lr,
                "flow": np.array([one.name for one in found], dtype=object),
                "flow_title": ("flow", np.array([one.title for one in found], dtype=object)),
                "layer": run["layer"].values,
            },
            attrs={"status": "success", "diverged": int(diverged), "steps": steps},
        )
    )


@dataclass(frozen=True)
class _Found:
    name: str
    title: str
    expected_order: int
    layer_error: np.ndarray
    error: float = math.nan
    relative_error: float = math.nan
    solver_error: float = math.nan
    start_share: float = math.nan

    @classmethod
    def unsolved(cls, flow: Flow, case: Case, run: xr.Dataset) -> _Found:
        name, title = name_and_title(flow, case.training.batch_size)
        return cls(name, title, flow.expected_order, np.full(run.sizes["layer"], math.nan))


def _solve(flow: Flow, case: Case, run: xr.Dataset, report: Callable[[int], None]) -> _Found:
    ends = run.isel(saved_step=[0, -1])
    found = _Found.unsolved(flow, case, run)
    if isinstance(flow, IteratedMapFlow):
        along = defects(run, flow.order)
        if along is not None:
            found = replace(
                found, start_share=share_at_start(along["defect"].values, run.sizes["step"] // 10)
            )
    options = case.solver.options()
    try:
        solution = solve(flow, ends, **options, record=["theta"], check=True, on_sample=report)
    except SolveError:
        return found
    last = compare(ends, solution).isel(step=-1)
    return replace(
        found,
        error=float(last["error"]),
        relative_error=float(last["relative_error"]),
        solver_error=float(last["solver_error"]),
        layer_error=last["layer_error"].values,
    )


def warm_state(case: Case, problem: Problem, optimizer: Optimizer) -> Tensor | None:
    """The state after the case's warm steps, as many as take the same time at this learning rate; None for none."""
    if not case.training.warm_steps:
        return None
    steps = round(case.training.warm_steps * case.optimizer.lr / optimizer.lr)
    warmed = train(
        problem, optimizer, steps, batch_size=case.training.batch_size, seed=case.seed, save_every=steps
    )
    return final_state(warmed)
