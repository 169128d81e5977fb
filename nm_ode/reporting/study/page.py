"""The page of a study of many members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import xarray as xr

from nm_ode.comparison.study.numbers import (
    FAILED,
    about,
    axes_of,
    quantities,
    remarks_of,
    study_numbers,
    with_numbers,
)
from nm_ode.comparison.study.orders import LR
from nm_ode.reporting.plots.base import Place
from nm_ode.reporting.report import environment, reportable, write_page
from nm_ode.reporting.sections import Drawing, Section, drawings
from nm_ode.reporting.study.plots import STUDY_PLOTS
from nm_ode.reporting.study.plots.plane import places
from nm_ode.reporting.study.tables import diagnosis_table, member_table, spread_table, study_order_table
from nm_ode.reporting.study.words import (
    MOST_TOLD,
    about_sentence,
    size_sentence,
    state_sentence,
    troubles,
    without_page,
)
from nm_ode.reporting.style import svg
from nm_ode.reporting.tables import layer_order_table, order_table
from nm_ode.required import as_path

MEMBERS = "members"
"""The folder of the members' pages, beside the study's."""


def write_study_report(tree: xr.DataTree, path: Path) -> Path:
    """Render the tree of a study of many members; an older report there is replaced at once or not at all.

    Members whose page is in the folder `members` beside it are linked to it.

    Args:
        tree: of `nm_ode.open_study`.

    Raises:
        ResultError: the tree is not of such a study.
        ReportError: it is, and what it holds is not what nm_ode writes.
        OSError: the folder cannot be written, or is full.
    """
    path = as_path(path, "path")
    pages = path.parent / MEMBERS
    html = study_html(tree, [page.stem for page in pages.glob("*.html")] if pages.is_dir() else [])
    return write_page(html, path)


def study_html(tree: xr.DataTree, pages: Iterable[str] = ()) -> str:
    """The page of a study of many members.

    Args:
        pages: names of the members that have a page in the folder `members` beside it.

    Raises:
        ResultError: the tree is not of such a study.
        ReportError: it is, and what it holds is not what nm_ode writes.
    """
    with reportable("study"):
        return _rendered(with_numbers(tree), frozenset(pages))


def study_sections(tree: xr.DataTree) -> Iterator[Section]:
    """All sections but the table of members, in order; what the study does not have is left out."""
    numbers = study_numbers(tree)
    drawn = _drawings(tree, "study")
    if drawn:
        yield Section("Over the axes", drawn)
    if quantities(numbers):
        yield Section("Spread over the members", table=spread_table(numbers))
    yield from _orders(tree)
    drawn = _drawings(tree, "losses")
    if drawn:
        yield Section("Runs", drawn)


def _orders(tree: xr.DataTree) -> Iterator[Section]:
    """With the diagnosis of each flow, where the study has a reduction to orders and lr is its one axis."""
    title = "Orders in the learning rate"
    found = tree["convergence"].dataset if "convergence" in tree.children else None
    if found is not None and found["error"].dims == (LR, "flow"):
        yield Section(title, drawings(tree, "orders"), order_table(found))
        yield Section("Orders by layer", table=layer_order_table(found))
        return
    table = study_order_table(study_numbers(tree))
    if table is not None:
        yield Section(title, _drawings(tree, "orders"), table)
    if found is not None and LR in found.dims:
        said = diagnosis_table(found)
        if said.rows:
            yield Section("Where an order is not theory's, and why", table=said)


def _rendered(tree: xr.DataTree, pages: frozenset[str]) -> str:
    numbers = study_numbers(tree)

    def link(member: str) -> str:
        return f"{MEMBERS}/{quote(member)}.html" if member in pages else ""

    found, facts = troubles(numbers), about(numbers)
    return (
        environment()
        .get_template("study.html.jinja")
        .render(
            title=facts.title or facts.name,
            lines=[size_sentence(numbers), state_sentence(numbers), about_sentence(numbers)],
            troubles=[(one, "" if one.state == FAILED else link(one.member)) for one in found[:MOST_TOLD]],
            remarks=remarks_of(tree),
            some_failed=any(one.state == FAILED for one in found),
            untold=max(0, len(found) - MOST_TOLD),
            sections=list(study_sections(tree)),
            members=member_table(numbers, link),
            without_page=without_page(numbers, pages),
            axes=[(name, places(numbers, name)) for name in axes_of(numbers)],
            facts=facts,
        )
    )


def _drawings(tree: xr.DataTree, place: Place) -> list[Drawing]:
    chosen = [plot for plot in STUDY_PLOTS.values() if plot.place == place and plot.applies(tree)]
    return [Drawing(plot.caption, svg(plot.figure(tree))) for plot in chosen]
