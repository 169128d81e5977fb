"""Tables of a study of many members: its members, their spread, the orders over lr."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from nm_ode.comparison import Outcome, diagnoses
from nm_ode.comparison.study.numbers import FAILED, MISSING, WHOLE, Quantity, axes_of, flows_of, quantities
from nm_ode.comparison.study.orders import LR, study_orders
from nm_ode.reporting.formats import count, exponent, number, order_with_error, power
from nm_ode.reporting.study.plots.plane import places
from nm_ode.reporting.tables import Cell, Column, Table, flow_label
from nm_ode.reporting.words import diagnosis_sentence

Link = Callable[[str], str]
"""Name of a member → where its page is; empty where it has none."""

_SHORT_TITLES = {
    "final_loss": "loss",
    "last_batch_loss": "batch loss",
    "final_test_loss": "test loss",
    "final_test_accuracy": "test acc.",
}
_TITLES = {
    "final_loss": "loss at\nthe end",
    "last_batch_loss": "loss of the\nlast batch",
    "final_test_loss": "test loss\nat the end",
    "final_test_accuracy": "test accuracy\nat the end",
    "largest_normalised_sharpness": "largest\nlr · λ_max",
    "sharpness_over_limit": "lr · λ_max\nover limit",
}
MOST_ROWS = 2000
_ORDER_ROWS = 200


def member_table(numbers: xr.Dataset, link: Link = lambda member: "") -> Table:
    """A row a member, in the order of the grid; at most MOST_ROWS of them."""
    axes, shown = axes_of(numbers), quantities(numbers)
    names = numbers["member"].values.reshape(-1).tolist()
    # A name says most values; those of long ones are hashed.
    told = [name for name in axes if not all(f",{name}=" in f",{member}" for member in names)]
    columns = [
        Column("member", "member", numeric=False),
        *(Column(name, None) for name in told),
        *(_column(one, numbers) for one in shown),
        *([Column("seconds", "s")] if "wall_seconds" in numbers else []),
    ]
    labels = {name: places(numbers, name) for name in axes}
    rows = []
    for at in list(np.ndindex(numbers["state"].shape))[:MOST_ROWS]:
        name, state = str(numbers["member"].values[at]), str(numbers["state"].values[at])
        rows.append(
            [
                Cell(
                    name,
                    flag=_flag(state),
                    brief_flag=_flag(state),
                    href="" if state in (FAILED, MISSING) else link(name),
                ),
                *(Cell(labels[axis][k]) for axis, k in zip(axes, at, strict=True) if axis in told),
                *(_value(one, float(one.values.values[at])) for one in shown),
                *(
                    [Cell(number(float(numbers["wall_seconds"].values[at])))]
                    if "wall_seconds" in numbers
                    else []
                ),
            ]
        )
    left = numbers["state"].size - len(rows)
    return Table(
        columns,
        rows,
        caption=f"{count(left)} more members are in the CSV file (nm-ode report … --csv FILE)."
        if left
        else "",
    )


def spread_table(numbers: xr.Dataset) -> Table:
    """Each number over all members that have it."""
    columns = (
        Column("", "", numeric=False),
        Column("members", "members"),
        Column("smallest", "smallest"),
        Column("quartile"),
        Column("median", "median"),
        Column("quartile"),
        Column("largest", "largest"),
        Column("mean"),
        Column("standard\ndeviation", "deviation"),
    )
    rows = []
    for one in quantities(numbers):
        known = one.values.values[np.isfinite(one.values.values)].astype(float)
        five = np.quantile(known, [0, 0.25, 0.5, 0.75, 1])
        deviation = float(known.std(ddof=1)) if known.size > 1 else float("nan")
        figures = [*five.tolist(), float(known.mean()), deviation]
        rows.append(
            [
                Cell(one.title, _short_title(one)),
                Cell(count(known.size)),
                *(_value(one, value) for value in figures),
            ]
        )
    return Table(columns, rows)


def study_order_table(numbers: xr.Dataset) -> Table | None:
    """The observed order in lr of each flow, a row for each place of the other axes; None where there are none."""
    orders = study_orders(numbers)
    if "observed_order" not in orders:
        return None
    others = [name for name in axes_of(numbers) if name != LR]
    flows = flows_of(numbers)
    columns = [
        *(Column(name, name, numeric=False) for name in others),
        *(
            Column(f"{textwrap.fill(title, 24)}\n(theory: {expected:g})", flow_label(flow))
            for (flow, title), expected in zip(flows, numbers["expected_order"].values, strict=True)
        ),
        Column("points\nin fit", "fit"),
    ]
    shape = tuple(numbers.sizes[name] for name in others)
    rows = []
    for at in list(np.ndindex(shape))[:_ORDER_ROWS]:
        one = orders.isel(dict(zip(others, at, strict=True)))
        points = [int(n) for n in one["points"].values]
        rows.append(
            [
                *(Cell(places(numbers, name)[k]) for name, k in zip(others, at, strict=True)),
                *(
                    Cell(order_with_error(float(order), float(error)))
                    for order, error in zip(
                        one["observed_order"].values, one["order_standard_error"].values, strict=True
                    )
                ),
                Cell(_range(points)),
            ]
        )
    return Table(
        columns,
        rows,
        caption=(
            "Order in lr of the error at the final time, by least squares on the logarithms, ± its standard error. A "
            "learning rate is in the fit where the solver's own error is below a tenth of what is measured, and the "
            "run below the stability limit, if its sharpness was measured."
        ),
        brief_caption="order in lr of the error at the final time, by least squares; fit: points that are in it",
    )


def diagnosis_table(convergence: xr.Dataset) -> Table:
    """Of each flow and place of the axes but lr whose order is not as expected: why.

    Args:
        convergence: of the study's reduction to orders, along its axes, lr, and `flow`.
    """
    others = [str(name) for name in convergence["error"].dims if name not in (LR, "flow")]
    labels = {name: places(convergence, name) for name in others}
    rows = []
    for at in np.ndindex(*(convergence.sizes[name] for name in others)):
        here = convergence.isel(dict(zip(others, at, strict=True)))
        for one in diagnoses(here.transpose(LR, "flow", ...)):
            if one.outcome not in (Outcome.AS_EXPECTED, Outcome.ABOVE):
                where = (Cell(labels[name][k]) for name, k in zip(others, at, strict=True))
                rows.append([*where, Cell(one.evidence.title), Cell(diagnosis_sentence(one))])
    columns = [
        *(Column(name, name, numeric=False) for name in others),
        Column("flow", "flow", numeric=False),
        Column("diagnosis", numeric=False),
    ]
    left = len(rows) - _ORDER_ROWS
    return Table(columns, rows[:_ORDER_ROWS], caption=f"{count(left)} more are left out." if left > 0 else "")


def _column(one: Quantity, numbers: xr.Dataset) -> Column:
    if one.flow is None:
        return Column(_TITLES[one.key], _short_title(one))
    flow, title = flows_of(numbers)[one.flow]
    return Column(textwrap.fill(title, 20), flow_label(flow), group=one.title.rpartition(": ")[2])


def _short_title(one: Quantity) -> str:
    if one.flow is None:
        return "lr·λ" if one.kind == "sharpness" else _SHORT_TITLES.get(one.key, one.key)
    return flow_label(one.key.partition(".")[2])


def _value(one: Quantity, value: float) -> Cell:
    if one.flow is not None:
        return Cell(power(value), exponent(value))
    return Cell(number(value))


def _flag(state: str) -> str:
    return "" if state == WHOLE else "not run" if state == MISSING else state


def _range(points: Sequence[int]) -> str:
    low, high = min(points), max(points)
    return str(low) if low == high else f"{low} to {high}"
