"""nm-ode run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nm_ode.cli.batch import Where, run_all
from nm_ode.cli.console import (
    complain,
    engines_told,
    print_dim,
    print_own_code,
    print_path,
    progress_bars,
)
from nm_ode.cli.results import present
from nm_ode.cli.stopping import DONE, FAILED, MISTAKE, heed

if TYPE_CHECKING:
    from nm_ode.studies import Case, Loaded


def run(
    cases: Annotated[
        list[str], typer.Argument(metavar="CASE", help="Case files, or names of shipped cases.")
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR|URL",
            help="Folder for the results; each case gets a folder of its name. A sweep may go to a URL, s3://bucket/….",
        ),
    ] = "results",
    engine: Annotated[
        str | None,
        typer.Option(
            help="Solve with this engine, whatever the case says: auto, or a name that `doctor` lists."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that run members of sweeps; 0 for this one alone. By default one for each core, or GPU.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each of them; by default cores / workers.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on the workers of this Dask scheduler, tcp://HOST:PORT."),
    ] = None,
    member: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run this member of the sweep alone.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the data, in place of the case's data.folder: where they were unpacked.",
        ),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Run the case as its table \\[smoke] has it: some steps of a small network, on generated data where "
            "it reads a folder, into results of their own.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say how many members are missing, and about what they will take."),
    ] = False,
    scratch: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Local folder for members that are not whole yet."),
    ] = None,
) -> None:
    """Run cases: train, solve the flows, compare, write store and report.

    A case that is done already is shown again at once; one that was cut off goes on from what was complete.
    Results of another case are never written over. Of a sweep, each member is such a case: the same command again
    runs what is missing, and two commands share the work.

      nm-ode run cases/digits_mlp.toml
      nm-ode run digits_mlp diabetes_linear --out elsewhere
      nm-ode run sweep_lr_momentum --workers 8
      nm-ode run vgg16_tiny_imagenet --smoke
      nm-ode run vgg16_tiny_imagenet --data /data/tiny-imagenet-200
    """
    # Mistakes in any of the files are reported before anything is computed.
    if workers is not None and scheduler is not None:
        complain(
            "--workers are of this machine, and those of --scheduler are there already: give one of the two"
        )
        raise typer.Exit(MISTAKE)
    if out.startswith("memory://"):
        if workers or scheduler:
            complain(
                f"{out} is in the memory of this process, which no other writes to: run with --workers 0"
            )
            raise typer.Exit(MISTAKE)
        workers = 0
    asked = _Asked(engine, data, smoke, _local(out, scratch))
    loaded = _ready(cases, asked)
    where = Where(
        out, workers, threads, scheduler, None if scratch is None else str(scratch), tuple(member or ())
    )
    if dry_run:
        from nm_ode.cli.estimate import tell_estimate

        raise typer.Exit(tell_estimate(loaded, where))
    of_many = where.members or scheduler or workers or any(one.sweep is not None for one, _ in loaded)
    if of_many or "://" in out:
        raise typer.Exit(run_all(loaded, where))
    worst = DONE
    for one, path in loaded:
        worst = max(worst, _run_one(one, path, Path(out), asked))
    raise typer.Exit(worst)


@dataclass(frozen=True)
class _Asked:
    """What the command's options change in a case.

    Attributes:
        smoke: run its table `[smoke]`?
        local: folder for generated data; None if there is no local one.
    """

    engine: str | None
    data: Path | None
    smoke: bool
    local: Path | None


def _local(out: str, scratch: Path | None) -> Path | None:
    return Path(out) if "://" not in out else scratch


def _ready(names: Sequence[str], asked: _Asked) -> list[tuple[Loaded, Path]]:
    """The cases, if there is no mistake in any; else all mistakes are told, and it is the end."""
    from nm_ode.studies import CaseError, NotHereError, find_case, load, make_data

    heed()
    ready: list[tuple[Loaded, Path]] = []
    wrong = 0
    for name in dict.fromkeys(names):
        try:
            path = find_case(name)
            loaded = load(path, engine=asked.engine, data=asked.data, smoke=asked.smoke, out=asked.local)
            if names.count(name) > 1 or any(loaded.case.name == other.case.name for other, _ in ready):
                raise CaseError(
                    f"two cases are called {loaded.case.name!r}: their results would go to one folder"
                )
        except CaseError as error:
            complain(str(error))
            wrong += 1
            continue
        ready.append((loaded, path))
    for loaded, path in ready:
        try:
            if asked.smoke and asked.local is not None:
                make_data(loaded.case, asked.local)
            if loaded.sweep is not None:
                _require_buildable(loaded.sweep.members[0].case, path)
            elif len(names) > 1:  # of one alone it is done when it runs
                _require_buildable(loaded.case, path)
        except NotHereError as error:
            complain(f"{error}{_remedy(loaded, path, asked)}")
            wrong += 1
        except CaseError as error:
            complain(str(error))
            wrong += 1
    if wrong:
        raise typer.Exit(MISTAKE)
    return ready


def _remedy(loaded: Loaded, path: Path, asked: _Asked) -> str:
    """What else can be done with a case whose data or device are not here."""
    data = "" if asked.data is not None or not loaded.in_folder else "; --data DIR says where the data are"
    if asked.smoke or not loaded.has_smoke:
        return data
    return f"{data}; `nm-ode run {path} --smoke` runs some steps of it on generated data, without a GPU"


def _require_buildable(case: Case, path: Path) -> None:
    """What a case names is there and goes together, but for its own code, which runs when the case does."""
    from nm_ode.studies import build_study, code_files

    if not code_files(case, path):
        with progress_bars() as progress:
            build_study(case, path, progress=progress)


def _run_one(loaded: Loaded, path: Path, out: Path, asked: _Asked) -> int:
    """The exit code."""
    from nm_ode.results.store import WriteError
    from nm_ode.studies import CaseError, NotHereError, StoreError, code_files, run_case

    case = loaded.case

    def say(sentence: str) -> None:
        print_dim(f"{case.name}: {sentence}")

    heed()
    print_own_code(code_files(case, path))
    try:
        with progress_bars() as progress, engines_told(say):
            outcome = run_case(case, path, out, progress, say, loaded.text)
    except WriteError as error:
        complain(f"{case.name}: {error}")
        return FAILED
    except NotHereError as error:
        complain(f"{error}{_remedy(loaded, path, asked)}")
        return MISTAKE
    except (CaseError, StoreError) as error:
        complain(str(error))
        return MISTAKE
    except OSError as error:
        complain(
            f"{case.name}: {error.filename or out}: {error.strerror or error}; what was complete is kept, run "
            "the same command again when there is room and access"
        )
        return FAILED
    except MemoryError:
        complain(
            f"{case.name}: there is not enough memory; what was complete is kept, run the same command where there is "
            "more, or a smaller case"
        )
        return FAILED
    for discarded in outcome.discarded:
        print_dim(discarded)
    presented = present(outcome.tree, outcome.store)
    if outcome.reused:
        print_dim("Done before; nothing was computed again.")
    for failure in outcome.failures:
        complain(f"{case.name}: {failure}")
    print_path("store ", outcome.store)
    return DONE if presented and not outcome.failures else FAILED
