"""The error of each flow over several learning rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nm_ode.comparison import USED
from nm_ode.reporting.formats import order_with_error
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.style import DISCRETE, colour, logarithmic, panel, plain, styled, ticks_at

_MARKERS = "os^DvpX*"


def order_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """Log error against log lr, a line of the fitted slope through the points in the fit, and the slopes of theory."""
    convergence = tree["convergence"].dataset
    with styled():
        axes = panel("Error at the final time, at each learning rate", 5.0, given=axes)
        lrs = convergence["lr"].values
        drawn: set[int] = set()
        for i, title in enumerate(convergence["flow_title"].values):
            errors = convergence["error"].values[:, i]
            used = convergence["left_out"].values[:, i] == USED
            order, error = (
                float(convergence[name].values[i]) for name in ("observed_order", "order_standard_error")
            )
            label = (
                f"{plain(str(title))}: {'no order' if np.isnan(order) else order_with_error(order, error)}"
            )
            style: dict[str, Any] = {
                "marker": _MARKERS[i % len(_MARKERS)],
                "ms": 6.5,
                "lw": 0,
                "color": colour(i),
            }
            axes.plot(lrs[used], errors[used], label=label, **style)
            axes.plot(lrs[~used], errors[~used], fillstyle="none", **style)
            solver = convergence["solver_error"].values[:, i]
            axes.plot(lrs, np.where(solver > 0, solver, np.nan), color=colour(i), lw=0.8, alpha=0.45)
            if used.sum() >= 2:
                middle = np.exp(np.log(lrs[used]).mean()), np.exp(np.log(errors[used]).mean())
                axes.plot(lrs[used], middle[1] * (lrs[used] / middle[0]) ** order, color=colour(i), lw=1.4)
                expected = int(convergence["expected_order"].values[i])
                if expected not in drawn:
                    _triangle(axes, lrs[used], errors[used], expected, colour(i))
                    drawn.add(expected)
        axes.plot([], [], marker="o", fillstyle="none", lw=0, color=DISCRETE, label="hollow: not in the fit")
        axes.plot([], [], lw=0.8, alpha=0.45, color=DISCRETE, label="thin: the solver's own error")
        axes.set_xscale("log")
        logarithmic(axes, "y")
        ticks_at(axes, lrs)
        axes.set_xlabel("learning rate  lr")
        axes.set_ylabel(r"error  $\|\theta(T) - \theta_N\|$  (units of θ)")
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, title="observed order, by least squares"
        )
        return axes


def _triangle(axes: Axes, lrs: np.ndarray, errors: np.ndarray, order: int, shade: str) -> None:
    """The slope that theory gives, below the two smallest points."""
    at = np.argsort(lrs)[:2]
    left, right = lrs[at]
    right = left * (right / left) ** 0.7
    base = errors[at[0]] / 2.2
    axes.fill(
        [left, right, right],
        [base, base, base * (right / left) ** order],
        facecolor=shade,
        alpha=0.16,
        edgecolor=shade,
        lw=0.8,
    )
    axes.text(
        right * 1.03, base * (right / left) ** (order / 2), f"{order}", color=shade, fontsize=9, va="center"
    )


ORDERS = Plot(
    "Each flow's distance to the run at the same final time, at each learning rate; lines: least squares on the "
    "logarithms; triangles: the slopes of theory for smooth losses.",
    order_plot,
    lambda tree: "convergence" in tree.children and tree["convergence"].dataset["error"].ndim == 2,
    "orders",
)
