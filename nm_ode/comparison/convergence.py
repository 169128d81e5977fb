"""The order of each flow, observed over several learning rates, beside the expected order (docs/theory.md §5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.comparison.diagnosis import Cause, Diagnosis, Evidence, LeftOut, Outcome, diagnose
from nm_ode.comparison.errors import SOLVER_LIMIT
from nm_ode.comparison.order import ObservedOrder, observed_order
from nm_ode.results import Beside, LadderInfo, annotate, ladder_info, write

Array = NDArray[np.float64]

USED = ""
"""In `left_out`, of a point that is in the fit."""


def convergence(points: Sequence[xr.Dataset], info: LadderInfo) -> xr.Dataset:
    """All learning rates of a ladder in one dataset, with the order of each flow.

    Args:
        points: one a learning rate, in any order: dimensions `flow`, `layer`; scalar coordinate `lr`; coordinates
            `flow_title` and `beside` ("" where the runs take all samples) along `flow`; `expected_order`, `error`,
            `relative_error`, `layer_error`, `solver_error`, `start_share`, `rounding`, `crossing_share`,
            `largest_normalised_sharpness`.
        info: confounders of the fit, which are the case's.

    Returns:
        `/convergence`: dimensions `lr` (falling), `flow`, `layer`. What was measured at each lr; `left_out`, why a
        point is not in the fit ("" if it is, else a `LeftOut`); `observed_order` and `order_standard_error` by least
        squares on log error against log lr, over the points that are in, of all parameters and of each layer;
        `expected_order`; and the diagnosis, `outcome` and `causes` (comma-separated), which `diagnoses` reads.
    """
    falling = sorted(
        (point.set_coords(["expected_order", "beside"]) for point in points),
        key=lambda point: -float(point["lr"]),
    )
    ladder = xr.concat(falling, "lr", data_vars="all", coords="minimal").drop_attrs(deep=False)
    lrs, flows, layers = ladder["lr"].values, ladder["flow"].values, ladder["layer"].values
    left_out = [_left_out(ladder, ladder["error"].values[:, i], i) for i in range(len(flows))]
    orders = [_fit(lrs, ladder["error"].values[:, i], left_out[i]) for i in range(len(flows))]
    by_layer = [[_layer_fit(ladder, lrs, i, j) for j in range(len(layers))] for i in range(len(flows))]
    fitted = write(
        ladder.assign(
            left_out=(("lr", "flow"), np.array(left_out, dtype=object).reshape(len(flows), len(lrs)).T),
            observed_order=("flow", np.array([order.order for order in orders])),
            order_standard_error=("flow", np.array([order.standard_error for order in orders])),
            layer_observed_order=(
                ("flow", "layer"),
                np.array([[fit.order for fit in row] for row in by_layer]),
            ),
            layer_order_standard_error=(
                ("flow", "layer"),
                np.array([[fit.standard_error for fit in row] for row in by_layer]),
            ),
        ),
        info,
    )
    judged = [diagnose(seen) for seen in _evidence(fitted)]
    return annotate(
        fitted.assign(
            outcome=("flow", np.array([one.outcome.value for one in judged], dtype=object)),
            causes=("flow", np.array([",".join(one.causes) for one in judged], dtype=object)),
        )
    )


def diagnoses(found: xr.Dataset) -> list[Diagnosis]:
    """The diagnosis of each flow, as `convergence` made it; of a study with further axes at one of their places.

    Raises:
        ResultError: the dataset is not from `convergence`.
    """
    found = found.sortby("lr", ascending=False)  # a study has them in the order of its case
    stored = zip(found["outcome"].values, found["causes"].values, _evidence(found), strict=True)
    return [
        Diagnosis(Outcome(outcome), tuple(Cause(name) for name in causes.split(",") if name), seen)
        for outcome, causes, seen in stored
    ]


def _left_out(ladder: xr.Dataset, errors: Array, i: int) -> list[str]:
    """Of each learning rate; the solver's own error in a layer is at most its error in all."""
    points = zip(errors, ladder["solver_error"].values[:, i], ladder["rounding"].values, strict=True)
    return [_reason(*point) for point in points]


def _reason(error: float, solver_error: float, rounding: float) -> str:
    if np.isnan(error):
        return LeftOut.NOT_SOLVED.value
    if error <= rounding:
        return LeftOut.ROUNDING.value
    return USED if solver_error <= SOLVER_LIMIT * error else LeftOut.SOLVER_ERROR.value


def _fit(lrs: Array, errors: Array, left_out: Sequence[str]) -> ObservedOrder:
    used = np.array(left_out) == USED
    if used.sum() < 2:
        return ObservedOrder(np.nan, np.nan)
    return observed_order(lrs[used].tolist(), errors[used].tolist())


def _layer_fit(ladder: xr.Dataset, lrs: Array, i: int, j: int) -> ObservedOrder:
    errors = ladder["layer_error"].values[:, i, j]
    return _fit(lrs, errors, _left_out(ladder, errors, i))


def _evidence(found: xr.Dataset) -> list[Evidence]:
    """Of each flow, from what `convergence` measured."""
    info = ladder_info(found)
    return [_evidence_of(found.isel(flow=i), info) for i in range(found.sizes["flow"])]


def _evidence_of(one: xr.Dataset, info: LadderInfo) -> Evidence:
    left_out = one["left_out"].values
    used = left_out == USED
    lrs, errors = one["lr"].values[used].tolist(), one["error"].values[used].tolist()
    counts = {why: int((left_out == why.value).sum()) for why in LeftOut}
    return Evidence(
        flow=str(one["flow"].item()),
        title=str(one["flow_title"].item()),
        order=ObservedOrder(float(one["observed_order"]), float(one["order_standard_error"])),
        expected=int(one["expected_order"]),
        points=len(used),
        left_out={why: count for why, count in counts.items() if count},
        local_orders=tuple(
            observed_order([lrs[a], lrs[b]], [errors[a], errors[b]]).order
            for a, b in pairwise(range(len(lrs)))
        ),
        kinks=info.kinks,
        crossing_share=_largest(one["crossing_share"].values[used]),
        normalised_sharpness=_largest(one["largest_normalised_sharpness"].values[used]),
        start_share=_largest(one["start_share"].values[used]),
        beside=cast("Beside | None", str(one["beside"].item()) or None),
        batch_bias=math.nan if info.batch_bias is None else info.batch_bias,
        batch_bias_error=math.nan if info.batch_bias_error is None else info.batch_bias_error,
        stateful=info.stateful,
        warm_start=info.warm_start,
        fixed_step=info.fixed_step,
    )


def _largest(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else float("nan")
