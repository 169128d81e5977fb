"""A study of many members for its reader: its page, those of its members, its tables, other formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from nm_ode.cli.console import complain, fits, out, print_dim, print_line, print_table, progress_bars
from nm_ode.cli.results import REPORT, print_orders
from nm_ode.cli.stopping import heed

if TYPE_CHECKING:
    import xarray as xr

    from nm_ode.results.folders import Folder

_ROWS = 60


def present_study(
    tree: xr.DataTree,
    folder: Folder,
    csv: Path | None = None,
    netcdf: Path | None = None,
    pages: bool | None = None,
) -> bool:
    """Write the page of a study and what else is asked for, and print its tables; what stands in the way is a sentence.

    Args:
        tree: of `open_study`.
        folder: of the study, where `study.zarr` is.
        pages: draw those of the members that have none, or an old one? If None, unless they are MANY_PAGES.

    Returns:
        Did all of it work? The store is as it was in any case.
    """
    from nm_ode.comparison.study.numbers import with_numbers
    from nm_ode.errors import NmOdeError

    heed()
    try:
        kept = with_numbers(tree)
        _print(kept)
        worked = _export(kept, csv, netcdf)
        return _write(kept, folder, pages) and worked
    except NmOdeError as error:
        complain(f"{folder.name}: {error}")
        return False


def _write(tree: xr.DataTree, folder: Folder, pages: bool | None) -> bool:
    """The study's page first: those of many members take their time."""
    from nm_ode.batch.tasks import MANY_PAGES
    from nm_ode.comparison.study import study_numbers
    from nm_ode.comparison.study.numbers import with_results
    from nm_ode.errors import NmOdeError
    from nm_ode.reporting.study.members import draw_page, pages_of, stale
    from nm_ode.reporting.study.page import study_html

    def page() -> None:
        html = study_html(tree, pages_of(folder))
        folder.write(REPORT, html.encode("utf-8", "backslashreplace"))

    worked = True
    try:
        page()
        print_line("report", folder.place(REPORT))
        there = with_results(study_numbers(tree))
        if not (len(there) <= MANY_PAGES if pages is None else pages):
            if pages is None and len(there) > len(pages_of(folder)):
                print_dim(
                    f"Pages of {len(there)} members are drawn with `nm-ode report {folder.name} --pages`."
                )
            return True
        wanted = stale(folder, there)
        with progress_bars() as progress:
            report = progress("pages of members", len(wanted))
            for done, member in enumerate(wanted, 1):
                try:
                    draw_page(folder, member)
                except NmOdeError as error:  # the others have theirs
                    complain(f"{folder.name}: the page of {member}: {error}")
                    worked = False
                report(done)
        if wanted:
            page()
    except OSError as error:
        where = error.filename or folder.place(REPORT)
        complain(
            f"{where} cannot be written ({error.strerror or error}); the results in {folder.name} are kept"
        )
        return False
    return worked


def _export(tree: xr.DataTree, csv: Path | None, netcdf: Path | None) -> bool:
    from nm_ode.comparison.study import write_csv, write_netcdf

    worked = True
    for label, path, write in (("csv   ", csv, write_csv), ("netcdf", netcdf, write_netcdf)):
        if path is None:
            continue
        try:
            print_line(label, str(write(tree, path)))
        except OSError as error:
            complain(f"{path} cannot be written ({error.strerror or error}): choose another file")
            worked = False
    return worked


def _print(tree: xr.DataTree) -> None:
    """The study in brief: how many members, what is not whole, all members if there is room or the spread, orders."""
    from nm_ode.comparison.study import study_numbers
    from nm_ode.comparison.study.numbers import about, quantities
    from nm_ode.reporting.study.tables import member_table, spread_table, study_order_table
    from nm_ode.reporting.study.words import size_sentence, state_sentence, troubles

    numbers = study_numbers(tree)
    said = about(numbers)
    out.print(Text(f"\n{said.title or said.name}", style="bold"))
    print_dim(f"{size_sentence(numbers)}; {state_sentence(numbers)}")
    members = member_table(numbers) if numbers["state"].size <= _ROWS else None
    measured = bool(quantities(numbers))
    if members is not None and (fits(members) or not measured):
        print_table(members)
    elif measured:
        print_table(spread_table(numbers))
    convergence = tree["convergence"].dataset if "convergence" in tree.children else None
    if convergence is not None and convergence["error"].dims == ("lr", "flow"):
        print_orders(convergence)
    elif (orders := study_order_table(numbers)) is not None:
        print_table(orders)
    for one in troubles(numbers)[:_ROWS]:
        out.print(Text.assemble((f"{one.state}:", "yellow"), f" {one.member}: {one.reason}"), soft_wrap=True)
