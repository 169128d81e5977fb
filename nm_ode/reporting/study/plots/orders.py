"""Orders over the learning rates of a study: the errors they are fitted to, and how they change along another axis."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nm_ode.comparison.study.numbers import axes_of, flows_of, study_numbers
from nm_ode.comparison.study.orders import LR, study_orders
from nm_ode.reporting.formats import order_with_error
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.study.plots.plane import few, places, positions
from nm_ode.reporting.style import WIDTH, colour, label_lowest, logarithmic, plain, styled, ticks_at

_PANELS = 9
_COLUMNS = 3
_MARKERS = "os^DvpX*"


def errors_over_lr(tree: xr.DataTree) -> Figure:
    """Log error against log lr, a panel for each place of the other axes, with the fitted slopes.

    Hollow points are not in the fit.

    Raises:
        ValueError: the study has no orders over lr.
    """
    numbers, orders = _with_orders(tree)
    others = [name for name in axes_of(numbers) if name != LR]
    spots = list(np.ndindex(*(numbers.sizes[name] for name in others)))
    shown = [spots[k] for k in few([str(spot) for spot in spots], _PANELS)]
    with styled():
        columns = min(_COLUMNS, len(shown))
        lines = -(-len(shown) // columns)
        high = 4.4 if lines == 1 and columns == 1 else 2.45 * lines + 0.7
        figure = Figure(figsize=(WIDTH, high), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes, spot in zip(grid.reshape(-1), shown, strict=False):
            at = dict(zip(others, spot, strict=True))
            _panel(axes, numbers.isel(at), orders.isel(at))
            title = ", ".join(
                f"{plain(name)} = {places(numbers, name)[k]}" for name, k in zip(others, spot, strict=True)
            )
            axes.set_title(title or "Error at the final time, at each learning rate", fontsize=9)
        label_lowest(grid, len(shown), "learning rate  lr")
        figure.supylabel(r"error  $\|\theta(T) - \theta_N\|$  (units of θ)", fontsize=10)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
        return figure


def orders_over_axis(tree: xr.DataTree, axis: str | None = None) -> Axes:
    """The observed order of each flow along another axis, with its standard error; dashed: the expected order.

    Raises:
        ValueError: the study has no orders over lr, or no further axis.
    """
    numbers, orders = _with_orders(tree)
    others = [name for name in axes_of(numbers) if name != LR and numbers.sizes[name] > 1]
    axis = axis or (others[0] if others else None)
    if axis not in others:
        raise ValueError("orders are drawn along an axis beside lr, with more than one place")
    where, in_logs = positions(numbers, axis)
    rest = [name for name in others if name != axis]
    with styled():
        axes = Figure(figsize=(WIDTH, 3.6), layout="constrained").subplots()
        axes.set_title("Observed order in lr")
        order = np.argsort(where, kind="stable")
        for i, (name, title) in enumerate(flows_of(numbers)):
            one = orders.sel(flow=name).transpose(axis, *rest, ...)
            values = one["observed_order"].values.reshape(len(where), -1)
            errors = one["order_standard_error"].values.reshape(len(where), -1)
            for k in range(values.shape[1]):
                axes.errorbar(
                    where[order],
                    values[order, k],
                    np.nan_to_num(errors[order, k]),
                    color=colour(i),
                    marker=_MARKERS[i % len(_MARKERS)],
                    ms=5.5,
                    lw=1.2,
                    capsize=2.5,
                    alpha=1.0 if values.shape[1] == 1 else 0.55,
                    label=plain(title) if k == 0 else None,
                )
            axes.axhline(
                float(numbers["expected_order"].sel(flow=name)),
                color=colour(i),
                lw=0.9,
                ls=(0, (5, 3)),
                alpha=0.7,
            )
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.15, high + 0.15)
        if in_logs:
            axes.set_xscale("log")
        labels = places(numbers, axis)
        shown = few(labels, 12)
        axes.set_xticks([where[k] for k in shown], [labels[k][:18] for k in shown])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(plain(axis))
        axes.set_ylabel("order")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
        return axes


def _panel(axes: Axes, numbers: xr.Dataset, orders: xr.Dataset) -> None:
    lrs = numbers[LR].values.astype(float)
    said = 0
    for i, (name, title) in enumerate(flows_of(numbers)):
        errors = numbers["error"].sel(flow=name).values
        errors = np.where(errors > 0, errors, np.nan)
        used = orders["used"].sel(flow=name).values
        order = float(orders["observed_order"].sel(flow=name))
        deviation = float(orders["order_standard_error"].sel(flow=name))
        style = {"marker": _MARKERS[i % len(_MARKERS)], "ms": 5, "lw": 0, "color": colour(i)}
        axes.plot(lrs[used], errors[used], label=plain(title), **style)  # type: ignore[arg-type]
        axes.plot(lrs[~used], errors[~used], fillstyle="none", **style)  # type: ignore[arg-type]
        if np.isfinite(order):
            x, y = np.log(lrs[used]).mean(), np.log(errors[used]).mean()
            ends = np.array([lrs[used].min(), lrs[used].max()])
            axes.plot(ends, np.exp(y) * (ends / np.exp(x)) ** order, color=colour(i), lw=1.2)
            axes.text(
                0.97,
                0.04 + 0.09 * said,
                order_with_error(order, deviation),
                transform=axes.transAxes,
                ha="right",
                fontsize=8,
                color=colour(i),
            )
            said += 1
    axes.set_xscale("log")
    logarithmic(axes, "y")
    shown = few([str(lr) for lr in lrs], 6)
    ticks_at(axes, lrs[shown])
    axes.tick_params(labelsize=8)


def _with_orders(tree: xr.DataTree) -> tuple[xr.Dataset, xr.Dataset]:
    numbers = study_numbers(tree)
    orders = study_orders(numbers)
    if "observed_order" not in orders:
        raise ValueError(
            "the study has no orders over lr: no such axis, no flow, or runs that end at other times"
        )
    return numbers, orders


def _has_orders(tree: xr.DataTree) -> bool:
    orders = study_orders(study_numbers(tree))
    return "observed_order" in orders and bool(np.isfinite(orders["observed_order"]).any())


def _has_axis(tree: xr.DataTree) -> bool:
    numbers = study_numbers(tree)
    return _has_orders(tree) and any(name != LR and numbers.sizes[name] > 1 for name in axes_of(numbers))


ERRORS = Plot(
    "Each flow's distance to the run at the same final time, at each learning rate; lines and numbers: least squares "
    "on the logarithms, with the standard error. Hollow points are not in the fit: the solver's own error is above a "
    "tenth of theirs, or the run passes the stability limit.",
    errors_over_lr,
    _has_orders,
    "orders",
)
ORDERS = Plot(
    "The observed order along another axis; bars: one standard error; dashed: theory for smooth losses.",
    orders_over_axis,
    _has_axis,
    "orders",
)
