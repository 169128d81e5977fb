"""nm-ode report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nm_ode.cli.console import MISTAKE, print_path, stop
from nm_ode.cli.results import print_results


def report(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A run.zarr, or the folder that holds it.")],
) -> None:
    """Write report.html beside a store, and print the tables."""
    from nm_ode.reporting import write_report
    from nm_ode.results import ResultError, StoreError, open_store

    path = store / "run.zarr" if store.is_dir() and store.suffix != ".zarr" else store
    try:
        tree = open_store(path)
        written = write_report(tree, path.parent / "report.html")
    except StoreError as error:
        stop(str(error), MISTAKE)
    except ResultError as error:
        stop(f"{path}: {error}", MISTAKE)
    except OSError as error:
        stop(f"{path.parent} cannot be written ({error.strerror})", MISTAKE)
    print_results(tree)
    print_path("report", written)
