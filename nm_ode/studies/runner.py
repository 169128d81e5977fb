"""Run a case into its store: train, solve, compare, each step kept as soon as it is complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import xarray as xr
from filelock import FileLock, Timeout

from bridges import EngineError
from nm_ode.comparison import compare, convergence
from nm_ode.flows import name_and_title
from nm_ode.loss.nonsmooth import kinks
from nm_ode.observers import CurvatureRecord, spread_steps
from nm_ode.results.store import StoreError, StoreWriter, another_case, first_difference, open_store
from nm_ode.solving import SolveError, require_ready, solve
from nm_ode.studies.build import Prepared, flows_beside, prepare
from nm_ode.studies.case import Case, CaseError
from nm_ode.studies.charges import prediction, wanted_symmetries
from nm_ode.studies.cross_check import cross_checked
from nm_ode.studies.ladder import rung, warm_state
from nm_ode.studies.versions import git_commit, versions
from nm_ode.symmetries import SymmetryError
from nm_ode.training import TrainingDiverged, train

Progress = Callable[[str, int], Callable[[int], None]]
"""`progress(what, total)` gives a function to be called with how much is done."""


@dataclass(frozen=True)
class Outcome:
    """Where the results are; `failures` has a sentence for each part that did not go well."""

    store: Path
    tree: xr.DataTree
    failures: tuple[str, ...]
    reused: bool


def run_case(case: Case, path: Path, out: Path, progress: Progress | None = None) -> Outcome:
    """Run a case, or go on with it, or find it done.

    Args:
        case, path: from `load_case`, and its file.
        out: the store becomes out/<name>/run.zarr.

    Raises:
        CaseError: what the case names is not there or does not fit.
        StoreError: the folder cannot be written or holds another case's results.
    """
    folder = out / case.name
    store = folder / "run.zarr"
    resolved = case.model_dump(mode="json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except OSError as error:
        if isinstance(error, Timeout):
            raise StoreError(
                f"{folder} is being written by another run; wait for it, or choose --out"
            ) from None
        raise StoreError(
            f"{folder} cannot be written ({error.strerror}): choose another folder with --out"
        ) from None
    try:
        if store.exists():
            tree = open_store(store)
            difference = first_difference(json.loads(tree.attrs["case"]), resolved)
            if difference is not None:
                raise StoreError(another_case(store, difference))
            if tree.attrs["status"] == "complete":
                return Outcome(store, tree, (), reused=True)
        prepared = prepare(case, path)
        problem = prepared.problem
        if case.flows:
            _require_ready(case, path)
        started = _now()
        writer = StoreWriter(store, resolved)
        try:
            failures = _fill(writer, case, prepared, progress or _silent)
        except SymmetryError as error:
            raise CaseError(f"{path}: symmetries: {error}") from None
        writer.finish(
            {
                "case": json.dumps(resolved),
                "case_file": path.name,
                "case_text": path.read_text(encoding="utf-8"),
                "title": case.title or case.name,
                "status": "failed" if failures else "complete",
                "failures": failures,
                "versions": json.dumps(versions()),
                "git_commit": git_commit(),
                "device": str(problem.device),
                "dtype": case.dtype,
                "seed": case.seed,
                "started": started,
                "ended": _now(),
                "parameters": problem.layout.size,
                "samples": problem.n_samples,
            }
        )
        return Outcome(store, open_store(store), tuple(failures), reused=False)
    finally:
        lock.release()


def _fill(
    writer: StoreWriter,
    case: Case,
    prepared: Prepared,
    progress: Progress,
) -> list[str]:
    wanted = None
    failures: list[str] = []
    if case.symmetries is not None:
        wanted = wanted_symmetries(case.symmetries, prepared.problem, prepared.optimizer)
        writer.write("symmetries", wanted.table)
        failures += wanted.defects
    chosen = wanted.chosen if wanted is not None else ()
    run = _complete(writer.read("discrete"))
    if run is None or (case.stability is not None and writer.read("discrete/curvature") is None):
        curvature = None
        if case.stability is not None:
            steps = spread_steps(case.training.steps, case.stability.points)
            curvature = CurvatureRecord(prepared.problem, prepared.optimizer, steps)
        try:
            run = train(
                prepared.problem,
                prepared.optimizer,
                case.training.steps,
                batch_size=case.training.batch_size,
                seed=case.seed,
                save_every=case.training.save_every,
                state0=warm_state(case, prepared.problem, prepared.optimizer),
                schedule=prepared.schedule,
                watches=[curvature] if curvature is not None else [],
                symmetries=chosen,
                on_step=progress("training", case.training.steps),
            )
        except TrainingDiverged as diverged:
            writer.write("discrete", diverged.run.assign_attrs(status="diverged", message=str(diverged)))
            if curvature is not None:
                writer.write("discrete/curvature", curvature.dataset(diverged.run))
            return [*failures, str(diverged)]
        run = run.assign_attrs(status="success")
        writer.write("discrete", run)
        if curvature is not None:
            writer.write("discrete/curvature", curvature.dataset(run))

    for law in wanted.laws if wanted is not None else ():
        predicted = prediction(run, law)
        writer.write(f"laws/{law}", predicted)
        writer.write(f"comparison/{law}", compare(run, predicted))

    for flow in flows_beside(case, prepared.problem, prepared.optimizer, run):
        name, title = name_and_title(flow, case.training.batch_size)
        group = f"flows/{name}"
        solution = _complete(writer.read(group))
        if solution is not None and case.solver.engines[1:] and "engine_distance" not in solution:
            solution = None  # the engine that was to check it had failed
        if solution is None:
            report = progress(title, run.sizes["saved_step"])
            try:
                solution = solve(
                    flow,
                    run,
                    **case.solver.options(),
                    check=case.solver.check,
                    symmetries=chosen,
                    on_sample=report,
                )
            except SolveError as error:
                solution = error.solution
                failures.append(str(error))
            else:
                try:
                    solution = cross_checked(solution, flow, run, case, progress)
                except (SolveError, EngineError) as error:
                    failures.append(f"cross-check: {error}")
            writer.write(group, solution)
        if solution.sizes.get("time"):
            writer.write(f"comparison/{name}", compare(run, solution))
    if case.ladder is not None:
        writer.write("convergence", _convergence(writer, case, prepared, case.ladder.lr, progress))
    return failures


def _convergence(
    writer: StoreWriter, case: Case, prepared: Prepared, lrs: list[float], progress: Progress
) -> xr.Dataset:
    rungs = []
    for i, lr in enumerate(lrs):
        group = f"rungs/{i}"
        done = _complete(writer.read(group))
        if done is None:
            done = rung(case, prepared.problem, lr, progress)
            writer.write(group, done)
        rungs.append(done)
    return convergence(
        rungs,
        {
            "kinks": ", ".join(kinks(prepared.problem)),
            "stateful": int(prepared.optimizer.stateful),
            "warm_start": int(case.training.warm_steps > 0),
            "fixed_step": int(case.solver.step is not None),
        },
    )


def _require_ready(case: Case, path: Path) -> None:
    """An engine that cannot start is told before anything is computed."""
    try:
        for engine in case.solver.engines:
            require_ready(engine)
    except EngineError as error:
        raise CaseError(f"{path}: solver.engine: {error}") from None


def _complete(dataset: xr.Dataset | None) -> xr.Dataset | None:
    return dataset if dataset is not None and dataset.attrs["status"] == "success" else None


def _silent(what: str, total: int) -> Callable[[int], None]:
    return lambda done: None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
