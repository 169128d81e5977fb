"""nm-ode run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nm_ode.cli.console import (
    DONE,
    FAILED,
    MISTAKE,
    complain,
    print_dim,
    print_own_code,
    print_path,
    progress_bars,
    stop,
)
from nm_ode.cli.results import print_results

if TYPE_CHECKING:
    from nm_ode.studies import Case


def run(
    cases: Annotated[
        list[str], typer.Argument(metavar="CASE", help="Case files, or names of shipped cases.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results; each case gets a folder of its name.")
    ] = Path("results"),
    engine: Annotated[
        str | None,
        typer.Option(
            help="Solve with this engine, whatever the case says: auto, or a name that `doctor` lists."
        ),
    ] = None,
) -> None:
    """Run cases: train, solve the flows, compare, write store and report.

    A case that is done already is shown again at once; one that was cut off goes on from what was complete.
    Results of another case are never written over.

      nm-ode run cases/digits_mlp.toml
      nm-ode run digits_mlp diabetes_linear --out elsewhere
    """
    # Mistakes in any of the files are reported before anything is computed.
    worst = DONE
    for case, path in _loaded(cases, engine):
        worst = max(worst, _run_one(case, path, out))
    raise typer.Exit(worst)


def _loaded(names: Sequence[str], engine: str | None) -> list[tuple[Case, Path]]:
    from nm_ode.studies import CaseError, find_case, load_case

    try:
        loaded = [(load_case(path, engine=engine), path) for path in map(find_case, names)]
        found = [case.name for case, _ in loaded]
        for name in found:
            if found.count(name) > 1:
                raise CaseError(f"two cases are called {name!r}: their results would go to one folder")
    except CaseError as error:
        stop(str(error), MISTAKE)
    return loaded


def _run_one(case: Case, path: Path, out: Path) -> int:
    """The exit code."""
    from nm_ode.reporting import write_report
    from nm_ode.results.store import WriteError
    from nm_ode.studies import CaseError, StoreError, code_files, run_case

    def say(sentence: str) -> None:
        print_dim(f"{case.name}: {sentence}")

    print_own_code(code_files(case, path))
    try:
        with progress_bars() as progress:
            outcome = run_case(case, path, out, progress, say)
    except WriteError as error:
        complain(f"{case.name}: {error}")
        return FAILED
    except (CaseError, StoreError) as error:
        complain(str(error))
        return MISTAKE
    except OSError as error:
        complain(
            f"{case.name}: {error.filename or out}: {error.strerror or error}; what was complete is kept, run "
            "the same command again when there is room and access"
        )
        return FAILED
    except KeyboardInterrupt:
        stop(f"{case.name}: interrupted; what was complete is kept, run the same command to go on", FAILED)
    for discarded in outcome.discarded:
        print_dim(discarded)
    report = write_report(outcome.tree, outcome.store.parent / "report.html")
    print_results(outcome.tree)
    if outcome.reused:
        print_dim("Done before; nothing was computed again.")
    for failure in outcome.failures:
        complain(f"{case.name}: {failure}")
    print_path("store ", outcome.store)
    print_path("report", report)
    return FAILED if outcome.failures else DONE
