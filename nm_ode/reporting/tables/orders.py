"""Orders over several learning rates."""

from __future__ import annotations

import xarray as xr

from nm_ode.comparison import Diagnosis, Outcome, diagnoses
from nm_ode.reporting.formats import exponent, number, order, order_with_error, power
from nm_ode.reporting.tables.flows import flow_label
from nm_ode.reporting.tables.table import Cell, Column, Table
from nm_ode.reporting.words import diagnosis_sentence


def order_table(convergence: xr.Dataset) -> Table:
    """The observed order of each flow beside theory's, with its diagnosis on the page."""
    convergence = convergence.sortby("lr", ascending=False)
    lrs = convergence["lr"].values
    columns = (
        Column("flow", "flow", numeric=False),
        Column("expected\norder"),
        Column("observed\norder", "order"),
        Column(None, "theory"),
        Column("standard\nerror"),
        Column(f"error at lr\n= {lrs[0]:g}", f"error at {lrs[0]:g}"),
        Column(f"error at lr\n= {lrs[-1]:g}", f"{lrs[-1]:g}"),
        Column("points\nin fit", "fit"),
        Column("diagnosis", numeric=False),
    )
    rows = [
        _order_cells(one, convergence["error"].values[:, i].tolist())
        for i, one in enumerate(diagnoses(convergence))
    ]
    return Table(
        columns,
        rows,
        caption=(
            "A learning rate is in the fit where the solver's own error is below a tenth of what is measured and the "
            f"error is above the run's rounding.{_confounders(convergence)}"
        ),
        brief_caption=(
            "order in lr of the error at the final time, by least squares over the learning rates; "
            "fit: points that are in it"
        ),
    )


def _order_cells(one: Diagnosis, errors: list[float]) -> list[Cell]:
    seen = one.evidence
    observed, deviation = seen.order.order, seen.order.standard_error
    return [
        Cell(seen.title, flow_label(seen.flow)),
        Cell(f"{seen.expected}"),
        Cell(order(observed), order_with_error(observed, deviation)),
        Cell("", f"{seen.expected}"),
        Cell(order(deviation)),
        *(Cell(power(error), exponent(error)) for error in (errors[0], errors[-1])),
        Cell(f"{seen.used}/{seen.points}"),
        Cell(diagnosis_sentence(one)),
    ]


def _confounders(convergence: xr.Dataset) -> str:
    """What was measured at each learning rate of the confounders of an order."""
    sharpness = ", ".join(map(number, convergence["largest_normalised_sharpness"].values.tolist()))
    note = f" Largest lr · λ_max along the path, from the largest learning rate down: {sharpness}."
    kinks = diagnoses(convergence)[0].evidence.kinks if convergence.sizes["flow"] else ()
    if kinks:
        shares = ", ".join(
            f"{number(100 * share)} %" for share in convergence["crossing_share"].values.tolist()
        )
        note += f" Units that cross a kink ({', '.join(kinks)}) in one step, mean over some steps: {shares}."
    return note


def unexpected(convergence: xr.Dataset) -> list[tuple[str, str]]:
    """Of each flow whose order is not as expected: its label and the diagnosis in words."""
    return [
        (flow_label(one.evidence.flow), diagnosis_sentence(one))
        for one in diagnoses(convergence)
        if one.outcome is not Outcome.AS_EXPECTED
    ]


def layer_order_table(convergence: xr.Dataset) -> Table:
    """The observed order of each layer; on the page alone."""
    columns = (
        Column("flow", numeric=False),
        Column("expected\norder"),
        *(Column(str(layer)) for layer in convergence["layer"].values),
    )
    values, errors = (
        convergence["layer_observed_order"].values,
        convergence["layer_order_standard_error"].values,
    )
    rows = [
        [
            Cell(one.evidence.title),
            Cell(f"{one.evidence.expected}"),
            *(Cell(order_with_error(*pair)) for pair in zip(values[i], errors[i], strict=True)),
        ]
        for i, one in enumerate(diagnoses(convergence))
    ]
    return Table(columns, rows)
