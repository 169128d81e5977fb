"""One study into its store: train, solve, compare; each group is kept as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr
from torch import Tensor

from bridges import EngineError
from nm_ode.charges import predict_charges
from nm_ode.comparison import compare, has_average, with_jump
from nm_ode.flows import Flow, FlowError
from nm_ode.observers import Charges, spread_steps
from nm_ode.results import RunInfo, run_info, solve_info
from nm_ode.results.curvature import without_curvature
from nm_ode.results.store import StoreWriter
from nm_ode.solving import SolveError, solve
from nm_ode.studies.build import Study
from nm_ode.studies.charges import wanted_symmetries
from nm_ode.studies.cross_check import cross_checked
from nm_ode.studies.keeping import Checkpoints
from nm_ode.studies.progress import Progress, unheard
from nm_ode.studies.sharpness import explain_orders
from nm_ode.symmetries import Symmetry
from nm_ode.training import TrainingDiverged, final_state, train


def compute(
    study: Study, writer: StoreWriter, progress: Progress, say: Callable[[str], None] = unheard
) -> list[str]:
    """Compute what the store lacks, and write it.

    Args:
        say: told what goes on from where, if a part was cut off.

    Returns:
        A sentence for each part that did not go well.

    Raises:
        SymmetryError: the model cannot be traced.
        ArgumentError: an observer that does not go with the others.
    """
    failures: list[str] = []
    wanted = wanted_symmetries(study.case, study.problem, study.optimizer)
    if wanted is not None:
        writer.write("symmetries", wanted.table)
        failures += wanted.defects
    chosen = wanted.chosen if wanted is not None else ()
    run = _trained(study, writer, chosen, progress, say)
    info = run_info(run)
    if info.status != "success":
        return [*failures, info.message]
    for law in wanted.laws if wanted is not None else ():
        predicted = predict_charges(run, law.name, with_residual=law.with_residual)
        writer.write(f"laws/{law.group}", predicted)
        writer.write(f"comparison/{law.group}", compare(run, predicted))
    flows = study.flows_beside(run, study.optimizer)
    # Beside a flow of the run's time average all flows are held against that.
    average = True if any(flow.follows_average for flow in flows) and has_average(run) else None
    for flow in flows:
        failures += _solved(study, writer, flow, run, chosen, average, progress, say)
    explain_orders(study, writer, run, flows)
    return failures


def _trained(
    study: Study,
    writer: StoreWriter,
    chosen: Sequence[Symmetry],
    progress: Progress,
    say: Callable[[str], None],
) -> xr.Dataset:
    """The run, from the store if it is there."""
    found, kept = known_run(study, writer), Checkpoints(writer, "discrete", say)
    if found is not None:
        return found
    try:
        run = train(
            study.problem,
            study.optimizer,
            seed=study.case.seed,
            state0=_warm_state(study, kept),
            on_step=progress("training", study.case.training.steps),
            checkpoint=kept("training"),
            full_loss=study.case.training.full_loss,
            **training_options(study, chosen),
        )
    except TrainingDiverged as diverged:
        run = diverged.run
    run = keep_run(writer, run)
    kept.forget()
    return run


def known_run(study: Study, writer: StoreWriter) -> xr.Dataset | None:
    """The run that the store has, if it is whole."""
    found = _complete(writer.read("discrete"), run_info)
    if found is not None and (not study.curvature() or writer.read("discrete/curvature") is not None):
        return found
    return None


def training_options(study: Study, chosen: Sequence[Symmetry]) -> dict[str, Any]:
    """What `train` takes of a case, beside what members of a sweep may differ in."""
    case = study.case
    every, laws = (
        (case.symmetries.charges_every, case.symmetries.laws) if case.symmetries is not None else (1, None)
    )
    return {
        "steps": case.training.steps,
        "batch_size": case.training.batch_size,
        "save_every": case.training.save_every,
        "schedule": study.schedule,
        "observe": [*study.curvature(), Charges(chosen, every, laws), *study.observers("run", chosen)],
    }


def keep_run(writer: StoreWriter, run: xr.Dataset) -> xr.Dataset:
    """Write a run, and the curvature in it as a group of its own; the run without it."""
    run, measured = without_curvature(run)
    writer.write("discrete", run)
    if measured is not None:
        writer.write("discrete/curvature", with_jump(measured, run["lr"].values))
    return run


def _warm_state(study: Study, kept: Checkpoints) -> Tensor | None:
    """The state after the case's warm steps; None for none."""
    training = study.case.training
    if not training.warm_steps:
        return None
    warmed = train(
        study.problem,
        study.optimizer,
        training.warm_steps,
        batch_size=training.batch_size,
        seed=study.case.seed,
        save_every=training.warm_steps,
        checkpoint=kept("warm"),
        full_loss=training.full_loss,
    )
    return final_state(warmed)


def at_some_of(run: xr.Dataset, samples: int | None) -> xr.Dataset:
    """The run with so many of its saved steps, spread evenly, with both ends; all of them if None."""
    saved = run.sizes["saved_step"]
    if samples is None or samples >= saved:
        return run
    return run.isel(saved_step=spread_steps(saved - 1, samples))


def _solved(
    study: Study,
    writer: StoreWriter,
    flow: Flow,
    run: xr.Dataset,
    chosen: Sequence[Symmetry],
    average: bool | None,
    progress: Progress,
    say: Callable[[str], None],
) -> list[str]:
    """Solve a flow, or find it solved, and compare it with the run."""
    case, failures = study.case, []
    name, title, _ = study.labels(flow)
    group = f"flows/{name}"
    solution = _complete(writer.read(group), solve_info)
    if solution is not None and case.solver.engines[1:] and "engine_distance" not in solution:
        solution = None  # the engine that was to check it had failed
    if solution is None:
        kept = Checkpoints(writer, group, say)
        theta0, observers = _start(study, run), study.observers("flows", chosen)
        beside = at_some_of(run, case.solver.samples)
        try:
            solution = solve(
                flow,
                beside,
                **case.solver.options(),
                check=case.solver.check,
                theta0=theta0,
                observe=[Charges(chosen), *observers],
                on_sample=progress(title, beside.sizes["saved_step"]),
                checkpoint=kept("solve"),
            )
        except (
            SolveError,
            FlowError,
        ) as error:  # a flow may end on its way, where it does not exist any more
            so_far: xr.Dataset | None = getattr(error, "solution", None)
            if so_far is None:
                raise
            solution = so_far
            failures.append(str(error))
        else:
            try:
                solution = cross_checked(
                    solution, flow, beside, case, progress, kept, theta0=theta0, observe=observers
                )
            except (SolveError, EngineError, FlowError) as error:
                failures.append(f"cross-check: {error}")
        writer.write(group, solution)
        kept.forget()
    if solution.sizes.get("time"):
        writer.write(f"comparison/{name}", compare(run, solution, average=average))
    return failures


def _start(study: Study, run: xr.Dataset) -> Tensor | None:
    """Theta to start a flow from, where a sketch stands in for the run's own; None where the run has it."""
    has_it = "theta" in run.variables or "initial_state" in run.variables
    return None if has_it else study.problem.theta0


def _complete(dataset: xr.Dataset | None, info: Callable[[xr.Dataset], RunInfo | Any]) -> xr.Dataset | None:
    return dataset if dataset is not None and info(dataset).status == "success" else None
