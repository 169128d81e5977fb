"""The flows: how far from the run, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from nm_ode.comparison import Row
from nm_ode.reporting.formats import count, exponent, number
from nm_ode.reporting.tables.table import Cell, Column, Table


def flow_label(name: str) -> str:
    """A flow's name for a narrow table; the iterated-map form, which every optimiser has, goes without saying."""
    return name.removesuffix("_iterated_map").replace("_", " ")


def flow_table(rows: Sequence[Row]) -> Table:
    """How far each flow is from the run, and how well it was solved."""
    columns = (
        Column("flow", "flow", numeric=False),
        Column("order in lr\nif smooth"),
        Column("at step"),
        Column("error", "error"),
        Column("relative to\nthe motion", "relative"),
        Column("loss gap", "loss gap"),
        Column("solver's\nown error"),
        Column("solver /\nflow error", "solver"),
        Column(None, "gradients"),
        Column(None, "method", numeric=False),
    )
    return Table(
        columns,
        [_flow_cells(row) for row in rows],
        caption=(
            "Errors are 2-norms in parameter space. Solver's own error: distance to a solution at a ten times tighter "
            "tolerance (or half the step); above a tenth of the flow's error the row is marked solver-limited."
        ),
        brief_caption=(
            f"at step {max((row.step for row in rows), default=0)}; relative: error over the motion; solver: the "
            "solver's own error over the flow's; gradients: evaluations"
            + (", + Hessian products" if any(row.hvp_evaluations for row in rows) else "")
        ),
    )


def _flow_cells(row: Row) -> list[Cell]:
    products = f"+{row.hvp_evaluations}" if row.hvp_evaluations else ""
    return [
        Cell(
            row.title,
            flow_label(row.name),
            flag="" if row.solved else "stopped early",
            brief_flag="" if row.solved else "stopped",
        ),
        Cell(f"{row.expected_order}"),
        Cell(count(row.step)),
        Cell(number(row.error), exponent(row.error)),
        Cell(number(row.relative_error), exponent(row.relative_error)),
        Cell(number(row.loss_gap), exponent(row.loss_gap, sign=True)),
        Cell(number(row.solver_error)),
        Cell(
            number(row.solver_error_ratio),
            exponent(row.solver_error_ratio, 1),
            flag="solver-limited" if row.solver_limited else "",
            brief_flag="!" if row.solver_limited else "",
        ),
        Cell("", f"{row.gradient_evaluations}{products}"),
        Cell("", row.method),
    ]


def cost_table(rows: Sequence[Row]) -> Table:
    """What each flow cost; on the page alone."""
    columns = (
        Column("flow", numeric=False),
        Column("engine", numeric=False),
        Column("rtol"),
        Column("right-hand\nsides"),
        Column("gradients"),
        Column("Hessian\nproducts"),
        Column("in gradients\nof the same time"),
        Column("seconds"),
    )
    caption = (
        "Of the solve itself, without its check. Hessian products: of the flow, or for an implicit method. In "
        "gradients of the same time: a product counts as its measured time over that of a gradient, 1.9 to 3 on the "
        "networks of the documentation; probes of the sharpness are in it, and flows that take products themselves are "
        "left out."
    )
    return Table(columns, [_cost_cells(row) for row in rows], caption=caption)


def _cost_cells(row: Row) -> list[Cell]:
    third = row.third_derivative_evaluations
    return [
        Cell(row.title, note=row.choice),
        Cell(f"{row.engine} {row.method}"),
        Cell(number(row.rtol)),
        Cell(count(row.rhs_evaluations)),
        Cell(count(row.gradient_evaluations)),
        Cell(count(row.hvp_evaluations), note=f"+ {count(third)} third derivatives" if third else ""),
        Cell("" if row.gradient_equivalents is None else count(round(row.gradient_equivalents))),
        Cell(number(row.wall_seconds)),
    ]
