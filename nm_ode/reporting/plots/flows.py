"""The run and the flows against flow time: their losses, and how far apart they are."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from nm_ode.comparison import Row, stability, summary
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.style import DISCRETE, colour, dash, logarithmic, panel, plain, styled, time_label


def loss_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """Loss over all samples: the run's saved steps and each flow."""
    with styled():
        axes = panel("Loss", given=axes)
        run = tree["discrete"].dataset
        axes.plot(
            run["saved_time"],
            run["full_loss"],
            color=DISCRETE,
            lw=0,
            marker="o",
            ms=3.2,
            markevery=max(1, run.sizes["saved_step"] // 60),
            label="discrete run",
            zorder=5,
        )
        for i, row in enumerate(summary(tree)):
            flow = tree[f"flows/{row.name}"].dataset
            if "loss" in flow:
                axes.plot(flow["time"], flow["loss"], color=colour(i), ls=dash(i), label=plain(row.title))
        losses = run["full_loss"].values
        if (losses > 0).all() and losses.max() > 20 * losses.min():
            axes.set_yscale("log")
        axes.set_xlabel(time_label(tree))
        axes.set_ylabel("loss over all samples")
        axes.legend()
        return axes


def error_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """Distance between each flow and the run, with the solver's own error below it.

    A line marks the time from which on the run is not stable.
    """
    with styled():
        axes = panel("Error against time", 4.4, given=axes)
        for i, row in enumerate(compared(tree)):
            comparison = tree[f"comparison/{row.name}"].dataset.isel(saved_step=slice(1, None))
            for name, style in (
                ("error", {"ls": dash(i), "label": plain(row.title)}),
                ("solver_error", {"lw": 1, "alpha": 0.55}),
            ):
                if name in comparison:
                    axes.plot(comparison["saved_time"], positive(comparison[name]), color=colour(i), **style)
        seen = stability(tree)
        if seen is not None and seen.unstable_time is not None:
            axes.axvline(
                seen.unstable_time, color=DISCRETE, lw=1, ls=(0, (1, 2)), label="stability limit passed"
            )
        logarithmic(axes, "y")
        axes.set_xlabel(time_label(tree))
        axes.plot([], [], color=DISCRETE, lw=1, alpha=0.55, label="solver's own error (thin, same colours)")
        axes.set_ylabel(r"error  $\|\theta(t_k) - \theta_k\|$  (units of θ)")
        # Below the axes: inside, there is no place without lines.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        return axes


def compared(tree: xr.DataTree) -> list[Row]:
    """Flows whose theta was compared with the run's beyond the start."""
    return [row for row in summary(tree) if row.step > 0 and row.error == row.error]


def positive(values: xr.DataArray) -> xr.DataArray:
    """Zeros have no place on a logarithmic axis."""
    return values.where(values > 0)


def _has_path(tree: xr.DataTree) -> bool:
    run = tree["discrete"].dataset
    return "full_loss" in run and run.sizes["saved_step"] > 1


LOSS = Plot("Loss over all samples, against flow time.", loss_plot, _has_path)
ERROR = Plot(
    "Distance between each flow and the discrete run at the same time; thin lines: the solver's own error, which must "
    "lie well below.",
    error_plot,
    lambda tree: bool(compared(tree)),
)
