"""The error table: one row a flow, read off a finished tree."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import xarray as xr

from nm_ode.results import Beside, CheckVerdict, SolveInfo, comparison_info, solve_info


class EngineDistance(NamedTuple):
    """The solution by a further engine: its method, and the largest distance of its solution."""

    method: str
    distance: float


@dataclass(frozen=True)
class Row:
    """A flow at the last compared step: how far from the run, at what cost, how well solved.

    What has the name of a field of `SolveInfo` is that. Numbers that were not measured are NaN.

    Attributes:
        name: of its group in the tree.
        step, time: of the last comparison; 0 where there is none.
        solver_step: of a fixed-step method.
        solver_limited: is the solver's own error above a tenth of the flow's? None without a check.
        holds_from: see `comparison.defects.holds_from`; None where the one-step defects are not known.
    """

    name: str
    title: str
    beside: Beside | None
    expected_order: int
    engine: str
    method: str
    choice: str
    kinks: tuple[str, ...]
    rtol: float
    status: str
    message: str
    rhs_evaluations: int
    gradient_evaluations: int
    hvp_evaluations: int
    third_derivative_evaluations: int
    wall_seconds: float
    jvp_evaluations: int = 0
    gradient_equivalents: float | None = None
    foreign_gradient: str = ""
    batch_share: float | None = None
    batch_bias: float | None = None
    batch_bias_error: float | None = None
    step: int = 0
    time: float = 0.0
    error: float = math.nan
    relative_error: float = math.nan
    loss_gap: float = math.nan
    solver_error: float = math.nan
    solver_error_ratio: float = math.nan
    solver_limited: bool | None = None
    solver_step: float | None = None
    holds_from: int | None = None
    engine_distances: tuple[EngineDistance, ...] = ()
    check_verdict: CheckVerdict | None = None
    rtol_floor: float | None = None
    gradient_noise: float | None = None
    coarse: tuple[str, ...] = ()
    dtype: str | None = None

    @property
    def solved(self) -> bool:
        """Did the solver come to the end?"""
        return self.status == "success"


_NAMES = {field.name for field in fields(Row)}
_OF_SOLVE = [field.name for field in fields(SolveInfo) if field.name in _NAMES - {"step"}]


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
    info = solve_info(flow)
    values = {key: getattr(info, key) for key in _OF_SOLVE}
    if "engine_distance" in flow:
        largest = flow["engine_distance"].max("time", skipna=False).values.tolist()
        values["engine_distances"] = tuple(
            EngineDistance(*pair) for pair in zip(flow["other_method"].values.tolist(), largest, strict=True)
        )
    if comparison is not None:
        last = comparison.isel(saved_step=-1)
        values |= {key: last[key].item() for key in last.data_vars if key in _NAMES}
        values |= {"step": int(last["saved_step"]), "time": float(last["saved_time"])}
        values["holds_from"] = comparison_info(comparison).holds_from
    return Row(name=name, solver_step=info.step, **values)
