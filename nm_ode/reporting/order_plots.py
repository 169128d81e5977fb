"""Figures of a ladder of learning rates and of the sharpness along a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from nm_ode.comparison import Stability
from nm_ode.reporting.style import COLOURS, DISCRETE, WIDTH, styled, svg, time_label

_MARKERS = "os^DvpX*"


def order_plot(convergence: xr.Dataset) -> str:
    """Log error against log lr, a line of the fitted slope through the points in the fit, and the slopes of theory."""
    with styled():
        figure = Figure(figsize=(WIDTH, 5.0), layout="constrained")
        axes = figure.subplots()
        axes.set_title("Error at the final time, at each learning rate")
        lrs = convergence["lr"].values
        drawn: set[int] = set()
        for i, title in enumerate(convergence["flow_title"].values):
            colour, errors = COLOURS[i % len(COLOURS)], convergence["error"].values[:, i]
            used = convergence["left_out"].values[:, i] == ""
            order, error = (
                float(convergence[name].values[i]) for name in ("observed_order", "order_standard_error")
            )
            label = f"{title}: {order:.2f}" + ("" if np.isnan(error) else f" ± {error:.2f}")
            if np.isnan(order):
                label = f"{title}: no order"
            style: dict[str, Any] = {
                "marker": _MARKERS[i % len(_MARKERS)],
                "ms": 6.5,
                "lw": 0,
                "color": colour,
            }
            axes.plot(lrs[used], errors[used], label=label, **style)
            axes.plot(lrs[~used], errors[~used], fillstyle="none", **style)
            solver = convergence["solver_error"].values[:, i]
            axes.plot(lrs, np.where(solver > 0, solver, np.nan), color=colour, lw=0.8, alpha=0.45)
            if used.sum() >= 2:
                middle = np.exp(np.log(lrs[used]).mean()), np.exp(np.log(errors[used]).mean())
                axes.plot(lrs[used], middle[1] * (lrs[used] / middle[0]) ** order, color=colour, lw=1.4)
                expected = int(convergence["expected_order"].values[i])
                if expected not in drawn:
                    _triangle(axes, lrs[used], errors[used], expected, colour)
                    drawn.add(expected)
        axes.plot([], [], marker="o", fillstyle="none", lw=0, color=DISCRETE, label="hollow: not in the fit")
        axes.plot([], [], lw=0.8, alpha=0.45, color=DISCRETE, label="thin: the solver's own error")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(lrs)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda lr, _: f"{lr:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("learning rate  lr")
        axes.set_ylabel(r"error  $\|\theta(T) - \theta_N\|$  (units of θ)")
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, title="order seen, by least squares"
        )
        return svg(figure)


def _triangle(axes: Axes, lrs: np.ndarray, errors: np.ndarray, order: int, colour: str) -> None:
    """The slope that theory gives, below the two smallest points."""
    at = np.argsort(lrs)[:2]
    left, right = lrs[at]
    right = left * (right / left) ** 0.7
    base = errors[at[0]] / 2.2
    axes.fill(
        [left, right, right],
        [base, base, base * (right / left) ** order],
        facecolor=colour,
        alpha=0.16,
        edgecolor=colour,
        lw=0.8,
    )
    axes.text(
        right * 1.03, base * (right / left) ** (order / 2), f"{order}", color=colour, fontsize=9, va="center"
    )


def sharpness_plot(tree: xr.DataTree, seen: Stability) -> str:
    """lr · λ_max against flow time, with the limits."""
    with styled():
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.set_title("Sharpness along the run")
        curvature = tree["discrete/curvature"].dataset
        axes.plot(
            curvature["curvature_time"],
            curvature["normalised_sharpness"],
            color=DISCRETE,
            marker="o",
            ms=3.2,
            lw=1.2,
            label=r"measured  lr · $\lambda_{\max}$",
        )
        axes.axhline(
            seen.stability_limit,
            color=COLOURS[1],
            lw=1.4,
            label=f"limit of stability, {seen.stability_limit:.3g}",
        )
        axes.axhline(
            seen.series_limit,
            color=COLOURS[0],
            lw=1.4,
            ls=(0, (6, 2)),
            label=f"limit of the modified flow's series, {seen.series_limit:g}",
        )
        axes.set_ylim(bottom=0)
        axes.set_xlabel(time_label(tree))
        axes.set_ylabel(r"lr · $\lambda_{\max}$  (dimensionless)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
        return svg(figure)
