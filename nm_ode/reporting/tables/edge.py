"""Past the edge of stability: each flow against the run's own time average."""

from __future__ import annotations

import math

from nm_ode.comparison import Edge, EdgeRow
from nm_ode.reporting.formats import NOT_MEASURED, count, exponent, number
from nm_ode.reporting.tables.flows import flow_label
from nm_ode.reporting.tables.table import Cell, Column, Table


def edge_table(seen: Edge) -> Table:
    """How far each flow and the run itself are from the run's average, and from its averaged loss and gradient."""
    columns = (
        Column("", "to the average", numeric=False),
        Column("at step"),
        Column("error", "error"),
        Column("over the\nmotion", "relative"),
        Column("mean past\nthe edge", "past edge"),
        Column("once the run\noscillates", "oscillating"),
        Column("from the\naveraged loss", "loss"),
        Column("from the averaged\ngradient norm", "gradient"),
    )
    past = "no flow comes to it" if seen.step is None else f"from step {count(seen.step)} on"
    since = "it does not" if seen.settled is None else f"from step {count(seen.settled)} on"
    return Table(
        columns,
        [_cells(row) for row in seen.rows],
        caption=(
            f"Distances to the run's own time average: {seen.average}; means are of those over the motion. Past the "
            f"edge: {past}, where a central flow predicts an oscillation; once the run oscillates: {since}, where it "
            "has half of the mean variance predicted. Loss and gradient norm: what the flow has, with the "
            "oscillation's part where it predicts that, from the run's averaged ones; mean over their mean, once the "
            "run oscillates. All up to the last step that all flows came to."
        ),
        brief_caption=(
            f"distance to the run's own time average, over the motion; means past the edge ({past}) and once the run "
            f"oscillates ({since}); loss, gradient: from the run's averaged ones, once it oscillates"
        ),
    )


def _cells(row: EdgeRow) -> list[Cell]:
    label = "the run itself" if row.name == "discrete" else flow_label(row.name)
    return [
        Cell(row.title, label),
        Cell(count(row.step)),
        Cell(number(row.error), exponent(row.error)),
        Cell(number(row.relative_error), exponent(row.relative_error)),
        Cell(number(row.mean), exponent(row.mean)),
        Cell(number(row.settled), exponent(row.settled)),
        _share(row.loss),
        _share(row.grad_norm),
    ]


def _share(value: float) -> Cell:
    return Cell(NOT_MEASURED if math.isnan(value) else f"{number(100 * value)} %")
