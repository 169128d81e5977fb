"""Run a case into its store, or go on with it, or find it done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import xarray as xr
from filelock import FileLock, Timeout

from bridges import EngineError, require_ready
from nm_ode.errors import NmOdeError
from nm_ode.results import Identity, StoreError, StudyInfo, open_store, study_info
from nm_ode.results.files import remove_leftovers
from nm_ode.results.identity import require_same
from nm_ode.results.store import StoreWriter, unfinished_identity
from nm_ode.studies.build import Study, build_study
from nm_ode.studies.errors import CaseError
from nm_ode.studies.identity import identity_now
from nm_ode.studies.member import compute
from nm_ode.studies.progress import Progress, silent, unheard
from nm_ode.studies.schema import Case
from nm_ode.studies.versions import git_commit, versions
from nm_ode.studies.written import file_name
from nm_ode.symmetries import SymmetryError


@dataclass(frozen=True)
class Outcome:
    """Where the results are.

    Attributes:
        failures: a sentence for each part that did not go well.
        reused: was all of it there before?
        discarded: a sentence for whatever was there before and was damaged, so that it was computed again.
    """

    store: Path
    tree: xr.DataTree
    failures: tuple[str, ...]
    reused: bool
    discarded: tuple[str, ...] = ()


def run_case(
    case: Case,
    path: Path,
    out: Path,
    progress: Progress | None = None,
    say: Callable[[str], None] = unheard,
    text: str | None = None,
) -> Outcome:
    """Run a case, or go on with it, or find it done.

    Args:
        case, path: from `load_case`, and its file.
        out: the store becomes out/<name>/run.zarr. One that is complete is shown wherever it can be read.
        say: told what goes on from where, if a part was cut off.
        text: of the case file; it is read if not given.

    Raises:
        CaseError: what the case names is not there or does not go together, the user's own code failed, or the case has
            a sweep.
        StoreError: the folder cannot be written, holds another case's results, or those of other code.
    """
    if case.sweep is not None:
        raise CaseError(
            f"{path}: sweep: its members are run by `nm-ode run {path}`, or one by one: those of load_sweep(path)"
        )
    store = out / case.name / "run.zarr"
    with _locked(store.parent) as obstacle:
        done = _done_before(case, path, store)
        if done is not None:
            return done
        if obstacle is not None:
            raise StoreError(
                f"{store.parent} cannot be written ({obstacle}): choose another folder with --out"
            )
        remove_leftovers(store.parent / "report.html")
        return _computed(case, path, store, progress or silent, say, text)


def _done_before(case: Case, path: Path, store: Path) -> Outcome | None:
    """What is complete already; nothing is written.

    Raises:
        StoreError: what is there is damaged, or of another case or other code.
    """
    tree = open_store(store) if os.path.lexists(store) else None
    info = None if tree is None else study_info(tree)
    there = unfinished_identity(store) if info is None else Identity(info.case, info.code)
    if there is not None:
        require_same(store, there, identity_now(case, there.code, path.parent))
    if tree is None or info is None or info.status != "complete":
        return None
    return Outcome(store, tree, (), reused=True)


def _computed(
    case: Case, path: Path, store: Path, progress: Progress, say: Callable[[str], None], text: str | None
) -> Outcome:
    written = run_case_into(case, path, store, progress, say, text)
    return Outcome(store, open_store(store), written.failures, False, written.discarded)


@dataclass(frozen=True)
class Written:
    """A store that was written now.

    Attributes:
        failures: a sentence for each part that did not go well.
        discarded: as of `Outcome`.
    """

    failures: tuple[str, ...]
    discarded: tuple[str, ...]


def run_case_into(
    case: Case,
    path: Path,
    store: Path,
    progress: Progress | None = None,
    say: Callable[[str], None] = unheard,
    text: str | None = None,
) -> Written:
    """Run a case into a store of any name, or go on with it; nobody else may be writing it.

    Args:
        case, path: from `load_case`, and its file, whose folder is that of the user's own code and data.
        store: what it is called when it is finished.
        text: of the case file; it is read if not given.

    Raises:
        CaseError, StoreError: as `run_case`.
    """
    if case.flows:
        _require_ready(case, path)
    study = build_study(case, path, text, progress)
    started = _now()
    writer = StoreWriter(store, study.identity)
    try:
        with study.code.explained():
            failures = compute(study, writer, progress or silent, say)
    except (CaseError, StoreError):
        raise
    except SymmetryError as error:
        raise CaseError(f"{path}: symmetries: {error}") from None
    except NmOdeError as error:  # what a batch in the middle of a run brings up, say
        raise CaseError(f"{path}: {error}") from None
    writer.finish(_info(study, failures, started))
    return Written(tuple(failures), tuple(writer.discarded))


@contextmanager
def _locked(folder: Path) -> Iterator[str | None]:
    """The folder, there and for nobody else to write; or why it cannot be written.

    Raises:
        StoreError: another run has it.
    """
    lock, obstacle = None, None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"{folder} is being written by another run; wait for it, or choose another folder with --out"
        ) from None
    except OSError as error:
        obstacle = error.strerror or str(error)
    try:
        yield obstacle
    finally:
        if lock is not None:
            lock.release()


def _require_ready(case: Case, path: Path) -> None:
    """An engine that cannot start is reported before anything is computed."""
    try:
        for engine in case.solver.engines:
            require_ready(engine)
    except EngineError as error:
        raise CaseError(f"{path}: solver.engine: {error}") from None


def _info(study: Study, failures: list[str], started: str) -> StudyInfo:
    case, problem = study.case, study.problem
    return StudyInfo(
        title=case.title or case.name,
        case=case.model_dump(mode="json"),
        case_file=file_name(study.path),
        case_text=study.text,
        status="failed" if failures else "complete",
        versions=versions(),
        git_commit=git_commit(),
        device=str(problem.device),
        dtype=case.dtype,
        seed=case.seed,
        started=started,
        ended=_now(),
        parameters=problem.layout.size,
        samples=problem.n_samples,
        failures=tuple(failures),
        code=study.identity.code,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
