"""Figures of a run, as SVG text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from nm_ode.comparison import Row
from nm_ode.reporting.style import COLOURS, DASHES, DISCRETE, WIDTH, styled, svg, time_label


def loss_plot(tree: xr.DataTree, rows: list[Row]) -> str:
    """Loss against flow time: the run's steps and each flow."""

    def draw(axes: Axes) -> None:
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
        for i, row in enumerate(rows):
            flow = tree[f"flows/{row.name}"].dataset
            if "loss" in flow:
                axes.plot(flow["time"], flow["loss"], color=_colour(i), ls=_dash(i), label=row.title)
        losses = run["full_loss"].values
        if (losses > 0).all() and losses.max() > 20 * losses.min():
            axes.set_yscale("log")
        axes.set_xlabel(time_label(tree))
        axes.set_ylabel("loss over all samples")
        axes.legend()

    return _figure("Loss", draw)


def error_plot(tree: xr.DataTree, rows: list[Row], unstable_time: float | None = None) -> str:
    """Distance between each flow and the run against time, with the solver's own error below it.

    A line marks the time from which on the run is not stable.
    """

    def draw(axes: Axes) -> None:
        for i, row in enumerate(rows):
            comparison = tree[f"comparison/{row.name}"].dataset.isel(step=slice(1, None))
            axes.plot(
                comparison["time"],
                _positive(comparison["error"]),
                color=_colour(i),
                ls=_dash(i),
                label=row.title,
            )
            if "solver_error" in comparison:
                axes.plot(
                    comparison["time"],
                    _positive(comparison["solver_error"]),
                    color=_colour(i),
                    lw=1,
                    alpha=0.55,
                )
        if unstable_time is not None:
            axes.axvline(
                unstable_time, color=DISCRETE, lw=1, ls=(0, (1, 2)), label="limit of stability passed"
            )
        axes.set_yscale("log")
        axes.set_xlabel(time_label(tree))
        axes.plot([], [], color=DISCRETE, lw=1, alpha=0.55, label="solver's own error (thin, same colours)")
        axes.set_ylabel(r"error  $\|\theta(t_k) - \theta_k\|$  (units of θ)")
        axes.legend()

    return _figure("Error against time", draw)


def layer_plot(tree: xr.DataTree, rows: list[Row]) -> str:
    """Relative error of each layer at the last step."""
    layers = [str(name) for name in tree["discrete"].dataset["layer"].values]

    def draw(axes: Axes) -> None:
        places = np.arange(len(layers))[::-1]
        for i, row in enumerate(rows):
            last = tree[f"comparison/{row.name}"].dataset.isel(step=-1)
            shift = 0.5 * (0.5 - (i + 0.5) / len(rows))
            axes.plot(
                _positive(last["layer_relative_error"]),
                places + shift,
                marker="os^Dvp"[i % 6],
                ms=8,
                lw=0,
                color=_colour(i),
                label=row.title,
            )
        axes.set_xscale("log")
        axes.set_yticks(places, layers)
        axes.set_ylim(-0.6, len(layers) - 0.4)
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = axes.get_xlim()
        if high < 30 * low:  # a decade or two to stand on, so that ticks have labels
            axes.set_xlim(low / 5, high * 5)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(
            r"error over the layer's motion  $\|\theta(t_k) - \theta_k\| \,/\, \|\theta_k - \theta_0\|$"
            "  (dimensionless)"
        )
        axes.set_ylabel("layer")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22 * 3.6 / _layer_height(layers)), ncols=2)

    return _figure("Error of each layer at the last step", draw, height=_layer_height(layers))


def _layer_height(layers: list[str]) -> float:
    return max(3.2, 0.5 * len(layers) + 1.4)


def _figure(title: str, draw: Callable[[Axes], None], height: float = 3.8) -> str:
    with styled():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        draw(axes)
        return svg(figure)


def _positive(values: xr.DataArray) -> xr.DataArray:
    """Zeros have no place on a logarithmic axis."""
    return values.where(values > 0)


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _dash(i: int) -> tuple[int, tuple[int, ...]]:
    return DASHES[i % len(DASHES)]
