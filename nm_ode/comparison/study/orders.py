"""Orders over the learning rates of a study: of each flow, at each place of the other axes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.comparison import observed_order
from nm_ode.comparison.errors import SOLVER_LIMIT
from nm_ode.comparison.study.numbers import axes_of

LR = "lr"
_SAME_TIME = 1e-6  # relative

Array = NDArray[np.float64]


def study_orders(numbers: xr.Dataset) -> xr.Dataset:
    """The order in lr of each flow's error at the final time, by least squares on the logarithms.

    Args:
        numbers: of `study_numbers`.

    Returns:
        Along the axes but lr, and `flow`: `observed_order`, `order_standard_error` (NaN from two points), `points` in
        the fit. Along all axes and `flow`: `used`, is the point in it, and `local_order`, from there to the next
        smaller learning rate, whether in the fit or not. A point is in the fit where the study's own reduction to
        orders has it in; where there is none, if its error is positive, the solver's own below a tenth of it, and the
        run, where its sharpness is known, below the stability limit. An empty dataset where the study has no such
        orders: the axes have no lr of at least two values, no flow was compared, or the runs along lr do not end at
        the same time.
    """
    axes = axes_of(numbers)
    if LR not in axes or numbers.sizes[LR] < 2 or "error" not in numbers:
        return xr.Dataset()
    lrs = numbers[LR].values
    if lrs.dtype.kind not in "fiu" or not (lrs > 0).all() or not _same_time(numbers):
        return xr.Dataset()
    others = [name for name in axes if name != LR]
    errors = numbers["error"].transpose(*others, "flow", LR)
    used = np.isfinite(errors.values) & (errors.values > 0)
    if "solver_error" in numbers:
        own = numbers["solver_error"].transpose(*others, "flow", LR).values
        used &= ~(own > SOLVER_LIMIT * np.where(used, errors.values, 1.0))
    if {"largest_normalised_sharpness", "stability_limit"} <= set(numbers.data_vars):
        beyond = numbers["largest_normalised_sharpness"] > numbers["stability_limit"]
        used &= ~beyond.transpose(*others, LR).values[..., None, :]
    if "in_fit" in numbers:  # the study's own reduction has decided
        used = numbers["in_fit"].transpose(*others, "flow", LR).values & (errors.values > 0)
    lr = lrs.astype(float)
    fits = np.array(
        [_fit(lr[which], row[which]) for row, which in zip(_rows(errors.values), _rows(used), strict=True)]
    ).reshape(*errors.shape[:-1], 2)
    local = np.array([_local(lr, row) for row in _rows(errors.values)]).reshape(errors.shape)
    where = [*others, "flow"]
    return xr.Dataset(
        {
            "observed_order": (where, fits[..., 0]),
            "order_standard_error": (where, fits[..., 1]),
            "points": (where, used.sum(axis=-1)),
            "used": ([*where, LR], used),
            "local_order": ([*where, LR], local),
        },
        coords={name: one for name, one in numbers.coords.items() if set(one.dims) <= {*axes, "flow"}},
    )


def _rows(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.reshape(-1, values.shape[-1])


def _fit(lrs: Array, errors: Array) -> tuple[float, float]:
    if len(lrs) < 2:
        return math.nan, math.nan
    found = observed_order(lrs.tolist(), errors.tolist())
    return found.order, found.standard_error


def _local(lrs: Array, errors: Array) -> Array:
    """From each learning rate to the next smaller one; NaN where one of both has no error."""
    found = np.full(len(lrs), math.nan)
    falling = np.argsort(-lrs, kind="stable")
    for one, smaller in pairwise(falling):
        if errors[one] > 0 and errors[smaller] > 0 and lrs[one] != lrs[smaller]:
            found[one] = math.log(errors[one] / errors[smaller]) / math.log(lrs[one] / lrs[smaller])
    return found


def _same_time(numbers: xr.Dataset) -> bool:
    if "end_time" not in numbers:
        return True
    whole = numbers["end_time"].where(numbers["state"] == "whole")
    low, high = whole.min(LR).values, whole.max(LR).values
    known = np.isfinite(low)
    return bool((high[known] - low[known] <= _SAME_TIME * np.abs(high[known])).all())
