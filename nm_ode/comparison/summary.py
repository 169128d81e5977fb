"""The error table: one row a flow, read off a finished tree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True)
class Row:
    """A flow at the last compared step: how far from the run, at what cost, how well solved.

    Numbers that were not measured are NaN. `solver_limited` is None without a check, `holds_from` (see
    `comparison.defects`) where the one-step defects are not known. `engine_distances`: method of each further engine,
    and the largest distance of its solution.
    """

    name: str
    title: str
    expected_order: int
    engine: str
    method: str
    choice: str
    kinks: str
    rtol: float
    status: str
    message: str
    rhs_evaluations: int
    gradient_evaluations: int
    hvp_evaluations: int
    wall_seconds: float
    step: int
    time: float
    error: float = math.nan
    relative_error: float = math.nan
    loss_gap: float = math.nan
    solver_error: float = math.nan
    solver_error_ratio: float = math.nan
    solver_limited: bool | None = None
    third_derivative_evaluations: int = 0
    holds_from: int | None = None
    engine_distances: tuple[tuple[str, float], ...] = ()


def summary(tree: xr.DataTree) -> list[Row]:
    """Rows in order of the flows' expected order, then name."""
    flows, comparisons = _datasets(tree, "flows"), _datasets(tree, "comparison")
    rows = [_row(name, flow, comparisons.get(name)) for name, flow in flows.items()]
    return sorted(rows, key=lambda row: (row.expected_order, row.name))


def _datasets(tree: xr.DataTree, group: str) -> dict[str, xr.Dataset]:
    if group not in tree.children:
        return {}
    return {name: node.to_dataset() for name, node in tree.children[group].children.items()}


def _row(name: str, flow: xr.Dataset, comparison: xr.Dataset | None) -> Row:
    fields = Row.__dataclass_fields__
    values = {key: flow.attrs[key] for key in fields if key in flow.attrs and key not in ("step", "time")}
    if "engine_distance" in flow:
        largest = flow["engine_distance"].max("time").values.tolist()
        values["engine_distances"] = tuple(zip(flow["other_method"].values.tolist(), largest, strict=True))
    step, time = 0, 0.0
    if comparison is not None:
        if "holds_from" in comparison.attrs:
            values["holds_from"] = int(comparison.attrs["holds_from"])
        last = comparison.isel(step=-1)
        step, time = int(last["step"]), float(last["time"])
        values |= {key: last[key].item() for key in fields if key in last.data_vars}
    return Row(name=name, step=step, time=time, **values)
