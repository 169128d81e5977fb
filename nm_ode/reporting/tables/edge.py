"""Past the edge of stability: each flow against the run's own time average."""

from __future__ import annotations

from nm_ode.comparison import Edge, EdgeRow
from nm_ode.reporting.formats import count, exponent, number
from nm_ode.reporting.tables.flows import flow_label
from nm_ode.reporting.tables.table import Cell, Column, Table


def edge_table(seen: Edge) -> Table:
    """How far each flow and the run itself are from the run's average, and from its averaged loss and gradient."""
    columns = (
        Column("", "to the average", numeric=False),
        Column("at step"),
        Column("error to\nthe average", "error"),
        Column("relative to\nthe motion", "relative"),
        Column("the same, mean\npast the edge", "past the edge"),
        Column("from the\naveraged loss", "loss"),
        Column("from the averaged\ngradient norm", "gradient norm"),
    )
    past = (
        "from the start on, for no flow comes to the edge"
        if seen.step is None
        else f"from step {count(seen.step)} on, where the central flow comes to the edge"
    )
    return Table(
        columns,
        [_cells(row) for row in seen.rows],
        caption=(
            f"Against the run's own time average: {seen.average}. Means are {past}. Loss and gradient norm: distance "
            "of what the flow has, with the oscillation's part where it predicts that, from the run's averaged "
            "ones, over these."
        ),
        brief_caption=(
            f"distance to the run's own time average; past the edge: mean {past}; loss, gradient norm: from the run's "
            "averaged ones"
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
        _share(row.loss),
        _share(row.grad_norm),
    ]


def _share(value: float) -> Cell:
    return Cell("–" if value != value else f"{100 * value:.2g} %")
