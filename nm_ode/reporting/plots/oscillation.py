"""The oscillation along the sharpest direction: foreseen from the curvature, and measured."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nm_ode.comparison import stability, with_jump
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.style import COLOURS, DISCRETE, panel, styled


def oscillation_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """Foreseen and measured against the step, with the size at which the run leaves a flow."""
    with styled():
        axes = panel("Oscillation along the sharpest direction", 3.4, given=axes)
        seen, along = stability(tree), _along(tree)
        assert seen is not None
        assert seen.jump is not None
        steps, foreseen = along["curvature_step"].values, along["foreseen_oscillation"]
        axes.plot(
            steps,
            foreseen.where(foreseen > 0),
            color=COLOURS[0],
            label="foreseen",
        )
        axes.plot(
            steps - 2,
            along["sharpest_oscillation"],
            color=DISCRETE,
            lw=0,
            marker="o",
            ms=3.2,
            label="measured, with what is smooth of the path",
        )
        if np.isfinite(seen.jump.size):
            axes.axhline(
                seen.jump.size, color=COLOURS[1], lw=1.4, label=f"bends the path, {seen.jump.size:.2g}"
            )
        for step, style, label in (
            (seen.unstable_from, (0, (1, 2)), "stability limit passed"),
            (seen.jump.foreseen, (0, (6, 2)), f"foreseen at step {seen.jump.foreseen}"),
            (seen.jump.seen, "-", f"seen at step {seen.jump.seen}"),
        ):
            if step is not None:
                axes.axvline(step, color=DISCRETE, lw=1, ls=style, label=label)
        axes.set_yscale("log")
        axes.set_xlabel("step of the optimiser")
        axes.set_ylabel("distance (units of θ)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
        return axes


def _along(tree: xr.DataTree) -> xr.Dataset:
    curvature = tree["discrete/curvature"].dataset.copy()
    return with_jump(curvature, tree["discrete"].dataset["lr"].values)


def _applies(tree: xr.DataTree) -> bool:
    seen = stability(tree)
    return seen is not None and seen.jump is not None and "foreseen_oscillation" in _along(tree)


OSCILLATION = Plot(
    "Root mean square of the oscillation along the sharpest direction as λ_max and the noise of the steps let it grow, "
    "and the fourth difference of the run's parameters along it, over 16.",
    oscillation_plot,
    _applies,
    "stability",
)
