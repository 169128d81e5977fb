"""Sharpness along a run."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from nm_ode.comparison import stability
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.style import COLOURS, DISCRETE, panel, styled, time_label


def sharpness_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """lr · λ_max against flow time, with its limits."""
    with styled():
        axes = panel("Sharpness along the run", 3.4, given=axes)
        curvature, seen = tree["discrete/curvature"].dataset, stability(tree)
        assert seen is not None
        axes.plot(
            curvature["curvature_time"],
            curvature["normalised_sharpness"],
            color=DISCRETE,
            marker="o",
            ms=3.2,
            lw=1.2,
            label=rf"measured  lr · $\lambda_{{\max}}$, at {seen.points} steps",
        )
        if seen.stability_limit is not None:
            axes.axhline(
                seen.stability_limit,
                color=COLOURS[1],
                lw=1.4,
                label=f"stability limit, {seen.stability_limit:.3g}",
            )
        axes.axhline(
            seen.series_limit,
            color=COLOURS[0],
            lw=1.4,
            ls=(0, (6, 2)),
            label=f"series limit, {seen.series_limit:g}",
        )
        axes.set_ylim(bottom=0)
        axes.set_xlabel(time_label(tree))
        axes.set_ylabel(r"lr · $\lambda_{\max}$  (dimensionless)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
        return axes


SHARPNESS = Plot(
    "λ_max: largest eigenvalue of the Hessian of the full loss (with weight decay, and for Adam preconditioned), by "
    "Lanczos at some steps of the run; lr · λ_max with the learning rate that multiplies it in the update.",
    sharpness_plot,
    lambda tree: stability(tree) is not None,
    "stability",
)
