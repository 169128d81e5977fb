"""What the report of a study says, section by section: tables, plots and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nm_ode.comparison import edge, law_infos, stability, summary, symmetry_summary
from nm_ode.reporting.edge_words import edge_sentences
from nm_ode.reporting.plots import PLOTS, RUN_PLOTS
from nm_ode.reporting.plots.base import Place
from nm_ode.reporting.style import svg
from nm_ode.reporting.tables import (
    Table,
    constraint_table,
    cost_table,
    edge_table,
    flow_table,
    law_table,
    layer_order_table,
    order_table,
    stability_table,
)
from nm_ode.reporting.words import (
    Sentence,
    farther_sentences,
    flow_sentences,
    remark_sentences,
    stability_sentence,
)
from nm_ode.results import symmetries_info


@dataclass(frozen=True)
class Drawing:
    """A plot as SVG text, and its caption."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Section:
    """A part of the report under a title of its own.

    Attributes:
        drawings, table, sentences: what it shows, in this order; sentences belong to the table, if there is one.
    """

    title: str
    drawings: Sequence[Drawing] = ()
    table: Table | None = None
    sentences: Sequence[Sentence] = ()


def sections(tree: xr.DataTree) -> list[Section]:
    """All sections, in order; what the tree does not have is left out."""
    return [
        *_flows(tree),
        *_orders(tree),
        *_stability(tree),
        *_edge(tree),
        *_costs(tree),
        *_plots(tree),
        *_observed(tree),
        *_symmetries(tree),
    ]


def _flows(tree: xr.DataTree) -> Iterator[Section]:
    rows = summary(tree)
    if rows:
        yield Section(
            "Distance between the flows and the discrete run",
            table=flow_table(rows),
            sentences=[*flow_sentences(rows), *farther_sentences(rows, stability(tree)), *_of_sketches(tree)],
        )


def _of_sketches(tree: xr.DataTree) -> Iterator[Sentence]:
    groups = tree["comparison"].children.values() if "comparison" in tree.children else ()
    shares = [
        float(np.nanmax(one["error_standard_error"] / one["error"].where(one["error"] > 0)))
        for one in (group.dataset for group in groups)
        if "error_standard_error" in one and bool((one["error"] > 0).any())
    ]
    if shares:
        yield Sentence(
            f"Distances are estimated from sketches of the parameters, with a standard error of {max(shares):.1%} each."
        )


def _orders(tree: xr.DataTree) -> Iterator[Section]:
    if "convergence" in tree.children:
        found = tree["convergence"].dataset
        yield Section("Orders in the learning rate", drawings(tree, "orders"), order_table(found))
        yield Section("Orders by layer", table=layer_order_table(found))


def _stability(tree: xr.DataTree) -> Iterator[Section]:
    seen = stability(tree)
    if seen is not None:
        yield Section("Stability", drawings(tree, "stability"), sentences=[stability_sentence(seen)])
        table = stability_table(seen)
        if table is not None:
            yield Section("Errors up to the stability limit, up to the jump, and past it", table=table)


def _edge(tree: xr.DataTree) -> Iterator[Section]:
    seen = edge(tree)
    if seen is not None:
        table = edge_table(seen) if seen.rows else None
        yield Section("Past the edge of stability", drawings(tree, "edge"), table, edge_sentences(seen))


def _costs(tree: xr.DataTree) -> Iterator[Section]:
    rows = summary(tree)
    if rows:
        yield Section("Cost", table=cost_table(rows))


def _plots(tree: xr.DataTree) -> Iterator[Section]:
    drawn = drawings(tree, "plots")
    if drawn:
        yield Section("Plots", drawn)


def _observed(tree: xr.DataTree) -> Iterator[Section]:
    drawn = [*drawings(tree, "observed"), *drawings(tree, "spectra")]
    if drawn:
        yield Section("What was observed along the run and the flows", drawn)


def _symmetries(tree: xr.DataTree) -> Iterator[Section]:
    if "symmetries" not in tree.children:
        return
    rows, laws = symmetry_summary(tree), law_infos(tree)
    info = symmetries_info(tree["symmetries"].to_dataset())
    remarks = remark_sentences(info)
    if not rows:
        none = Sentence("No symmetry was found in the model's graph that its training has.")
        yield Section("Symmetries and their charges", sentences=[none, *remarks])
        return
    drawn = drawings(tree, "symmetries")
    if drawn:
        yield Section("Symmetries and their charges", drawn)
    if laws:
        yield Section("How well the laws of motion predict the charges", table=law_table(rows, laws))
    yield Section(
        "Constraints that the symmetries put on gradient and Hessian",
        table=constraint_table(rows),
        sentences=remarks,
    )


def drawings(tree: xr.DataTree, place: Place) -> list[Drawing]:
    """The registered plots of one place that apply to the tree."""
    plots = [*PLOTS.values(), *RUN_PLOTS.values()]
    chosen = [plot for plot in plots if plot.place == place and plot.applies(tree)]
    return [Drawing(plot.caption, svg(plot.figure(tree))) for plot in chosen]
