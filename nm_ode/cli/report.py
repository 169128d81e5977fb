"""nm-ode report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nm_ode.cli.console import stop
from nm_ode.cli.results import present
from nm_ode.cli.stopping import DONE, FAILED, MISTAKE, heed


def report(
    store: Annotated[
        Path,
        typer.Argument(
            metavar="STORE", help="A run.zarr, of a case or of a Recorder, or the folder that holds it."
        ),
    ],
) -> None:
    """Write report.html beside a store, and print the tables."""
    from nm_ode.cli.recorded import present_run
    from nm_ode.results import StoreError, open_store
    from nm_ode.results.stream import is_recorded

    heed()
    if store.is_file() and store.suffix == ".toml":
        stop(
            f"{store} is not a store of nm_ode, but a case: `nm-ode run {store}` runs it, and a report is of the "
            "folder that it writes",
            MISTAKE,
        )
    path = store / "run.zarr" if store.is_dir() and store.suffix != ".zarr" else store
    if is_recorded(path):
        raise typer.Exit(DONE if present_run(path) else FAILED)
    try:
        tree = open_store(path)
    except StoreError as error:
        stop(str(error), MISTAKE)
    raise typer.Exit(DONE if present(tree, path) else FAILED)
