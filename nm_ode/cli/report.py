"""nm-ode report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nm_ode.cli.console import complain, stop
from nm_ode.cli.results import present
from nm_ode.cli.stopping import DONE, FAILED, MISTAKE, heed

_RUN, _STUDY = "run.zarr", "study.zarr"


def report(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="A run.zarr, of a case or of a Recorder, the study.zarr of a sweep, the folder that holds it, or a "
            "member in study.zarr.",
        ),
    ],
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a sweep: a row a member, as a CSV file.")
    ] = None,
    netcdf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a sweep: the same along its axes, with orders, as NetCDF."),
    ] = None,
    pages: Annotated[
        bool | None,
        typer.Option(
            "--pages/--no-pages",
            help="Of a sweep: draw the page of every member too. By default of up to 100 members.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write report.html beside a store, and print the tables."""
    from nm_ode.cli.recorded import present_run
    from nm_ode.results import StoreError, open_store
    from nm_ode.results.stream import is_recorded

    heed()
    path = Path(store)
    if path.is_file() and path.suffix == ".toml":
        stop(
            f"{store} is not a store of nm_ode, but a case: `nm-ode run {store}` runs it, and a report is of the "
            "folder that it writes",
            MISTAKE,
        )
    study = _study(store)
    if study is not None:
        raise typer.Exit(_of_study(study, csv, netcdf, pages))
    for option, given in (("--csv", csv), ("--netcdf", netcdf), ("--pages", pages)):
        if given is not None:
            stop(f"{store} is not the study of a sweep, and {option} is for one: leave it out", MISTAKE)
    page = _page_of_member(path)
    if page is None and path.is_dir() and path.suffix != ".zarr":
        path = path / _RUN
    if is_recorded(path):
        raise typer.Exit(DONE if present_run(path) else FAILED)
    try:
        tree = open_store(path)
    except StoreError as error:
        stop(str(error), MISTAKE)
    raise typer.Exit(DONE if present(tree, path, page) else FAILED)


def _study(store: str) -> str | None:
    """Path or URL of the study's store, if it is one."""
    given = store.rstrip("/")
    if "://" in given:
        return given if given.endswith(".zarr") else f"{given}/{_STUDY}"
    path = Path(given)
    if path.name == _STUDY:
        return given
    return str(path / _STUDY) if path.suffix != ".zarr" and (path / _STUDY).is_dir() else None


def _page_of_member(store: Path) -> Path | None:
    """Where the page of a member of a sweep is, if the store is one: its study links it."""
    from nm_ode.reporting.study.page import MEMBERS

    store = store.absolute()
    if store.parent.name != _STUDY or not (store.is_dir() and "=" in store.name):
        return None
    return store.parent.parent / MEMBERS / f"{store.name}.html"


def _of_study(study: str, csv: Path | None, netcdf: Path | None, pages: bool | None) -> int:
    from nm_ode.cli.study import present_study
    from nm_ode.results import StoreError, open_study
    from nm_ode.results.remote import folder_at

    try:
        tree = open_study(study)
    except StoreError as error:
        complain(str(error))
        return MISTAKE
    return DONE if present_study(tree, folder_at(study.rpartition("/")[0]), csv, netcdf, pages) else FAILED
