"""Run a case into its store: train, solve, compare, each step kept as soon as it is complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import xarray as xr
from filelock import FileLock, Timeout

from nm_ode.comparison import compare
from nm_ode.solving import SolveError, solve
from nm_ode.studies.case import Case, CaseError
from nm_ode.studies.charges import prediction, wanted_symmetries
from nm_ode.studies.preparing import Prepared, prepare
from nm_ode.studies.store import StoreError, StoreWriter, another_case, first_difference, open_store
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
        wanted = wanted_symmetries(case.symmetries, prepared.problem, prepared.optimizer.momentum)
        writer.write("symmetries", wanted.table)
        failures += wanted.defects
    chosen = wanted.chosen if wanted is not None else ()
    run = _complete(writer.read("discrete"))
    if run is None:
        try:
            run = train(
                prepared.problem,
                prepared.optimizer,
                case.training.steps,
                batch_size=case.training.batch_size,
                seed=case.seed,
                save_every=case.training.save_every,
                schedule=prepared.schedule,
                symmetries=chosen,
                on_step=progress("training", case.training.steps),
            )
        except TrainingDiverged as diverged:
            writer.write("discrete", diverged.run.assign_attrs(status="diverged", message=str(diverged)))
            return [*failures, str(diverged)]
        run = run.assign_attrs(status="success")
        writer.write("discrete", run)

    for law in wanted.laws if wanted is not None else ():
        predicted = prediction(run, law)
        writer.write(f"laws/{law}", predicted)
        writer.write(f"comparison/{law}", compare(run, predicted))

    for flow in prepared.flows:
        group = f"flows/{flow.name}"
        solution = _complete(writer.read(group))
        if solution is None:
            options = case.solver.model_dump()
            report = progress(flow.title, run.sizes["saved_step"])
            try:
                solution = solve(flow, run, **options, symmetries=chosen, on_sample=report)
            except SolveError as error:
                solution = error.solution
                failures.append(str(error))
            writer.write(group, solution)
        if solution.sizes.get("time"):
            writer.write(f"comparison/{flow.name}", compare(run, solution))
    return failures


def _complete(dataset: xr.Dataset | None) -> xr.Dataset | None:
    return dataset if dataset is not None and dataset.attrs["status"] == "success" else None


def _silent(what: str, total: int) -> Callable[[int], None]:
    return lambda done: None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
