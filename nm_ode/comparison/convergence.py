"""The order of each flow, seen over a ladder of learning rates, beside the order that theory gives (THEORY.md §5)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.comparison.errors import SOLVER_LIMIT
from nm_ode.comparison.order import ObservedOrder, observed_order
from nm_ode.comparison.verdict import Evidence, verdict
from nm_ode.results.schema import annotate

Array = NDArray[np.float64]

USED, NOT_SOLVED, SOLVER, ROUNDING = "", "not solved", "solver's error", "rounding"


def convergence(rungs: Sequence[xr.Dataset], attrs: dict[str, str | int]) -> xr.Dataset:
    """All rungs in one, with the orders.

    Args:
        rungs: one a learning rate, from `studies.ladder`.
        attrs: of the case: `kinks`, `stateful`, `warm_start`, `fixed_step`.

    Returns:
        `/convergence`: dimensions `lr` (falling), `flow`, `layer`. What was measured at each lr; `left_out`, why a
        point is not in the fit ("" if it is); `observed_order` and `order_standard_error` by least squares on
        log error against log lr, over the points that are in, of all parameters and of each layer; `expected_order`,
        and a `verdict` in words.
    """
    falling = sorted(
        (rung.set_coords("expected_order") for rung in rungs), key=lambda rung: -float(rung["lr"])
    )
    ladder = xr.concat(falling, "lr", data_vars="all", coords="minimal").drop_attrs(deep=False)
    lrs, flows, layers = ladder["lr"].values, ladder["flow"].values, ladder["layer"].values
    left_out = np.array(
        [
            [
                _reason(*pair)
                for pair in zip(
                    ladder["error"].values[:, i],
                    ladder["solver_error"].values[:, i],
                    ladder["rounding"].values,
                    strict=True,
                )
            ]
            for i in range(len(flows))
        ],
        dtype=object,
    ).T
    orders = [_fit(lrs, ladder["error"].values[:, i], left_out[:, i] == USED) for i in range(len(flows))]
    by_layer = [[_layer_fit(ladder, lrs, i, j) for j in range(len(layers))] for i in range(len(flows))]
    words = [_words(ladder, left_out[:, i], i, orders[i], attrs) for i in range(len(flows))]
    result = ladder.assign(
        left_out=(("lr", "flow"), left_out),
        observed_order=("flow", np.array([order.order for order in orders])),
        order_standard_error=("flow", np.array([order.standard_error for order in orders])),
        layer_observed_order=(("flow", "layer"), np.array([[fit.order for fit in row] for row in by_layer])),
        layer_order_standard_error=(
            ("flow", "layer"),
            np.array([[fit.standard_error for fit in row] for row in by_layer]),
        ),
        verdict=("flow", np.array(words, dtype=object)),
    )
    return annotate(result.assign_attrs(status="success", **attrs))


def _reason(error: float, solver_error: float, rounding: float) -> str:
    if np.isnan(error):
        return NOT_SOLVED
    if error <= rounding:
        return ROUNDING
    return USED if solver_error <= SOLVER_LIMIT * error else SOLVER


def _fit(lrs: Array, errors: Array, used: NDArray[np.bool_]) -> ObservedOrder:
    if used.sum() < 2:
        return ObservedOrder(np.nan, np.nan)
    return observed_order(lrs[used].tolist(), errors[used].tolist())


def _layer_fit(ladder: xr.Dataset, lrs: Array, i: int, j: int) -> ObservedOrder:
    """The solver's error in a layer is at most its error in all."""
    errors = ladder["layer_error"].values[:, i, j]
    points = zip(errors, ladder["solver_error"].values[:, i], ladder["rounding"].values, strict=True)
    return _fit(lrs, errors, np.array([_reason(*point) == USED for point in points]))


def _words(
    ladder: xr.Dataset, left_out: np.ndarray, i: int, order: ObservedOrder, attrs: dict[str, str | int]
) -> str:
    used = left_out == USED
    lrs, errors = ladder["lr"].values[used], ladder["error"].values[used, i]
    at = np.flatnonzero(used)
    return verdict(
        Evidence(
            order=order,
            expected=int(ladder["expected_order"].values[i]),
            rungs=len(used),
            left_out={why: int((left_out == why).sum()) for why in (NOT_SOLVED, SOLVER, ROUNDING)},
            local_orders=tuple(
                observed_order(lrs[[a, b]].tolist(), errors[[a, b]].tolist()).order
                for a, b in pairwise(range(len(at)))
            ),
            kinks=str(attrs["kinks"]),
            crossing_share=_largest(ladder["crossing_share"].values[used]),
            noise=str(ladder["flow"].values[i]).startswith("full_batch_"),
            normalised_sharpness=_largest(ladder["largest_normalised_sharpness"].values[used]),
            cold_start=bool(attrs["stateful"]) and not attrs["warm_start"],
            start_share=_largest(ladder["start_share"].values[used, i]),
            fixed_step=bool(attrs["fixed_step"]),
            batch_transients=bool(attrs["stateful"])
            and str(ladder["flow"].values[i]).startswith("same_batch_"),
        )
    )


def _largest(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else float("nan")
