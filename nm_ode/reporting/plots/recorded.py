"""A recorded run over its steps: loss, whatever number was recorded, and what was recorded of each layer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.given import Grid, Panels, figure_of, flat_panels
from nm_ode.reporting.style import COLOURS, DISCRETE, WIDTH, plain, styled
from nm_ode.results import long_name

_POINTS = 400
_COLUMNS = 2
_NOT_DRAWN = {"loss", "lr", "theta", "test_loss", "test_accuracy"}  # or in a plot of their own
BOOKKEEPING = ("_products", "_random", "_asymmetry", "_trace_vectors")
"""How a number's name ends that says how others were made."""
_LEGEND = 10  # layers that a legend names


def loss_plot(tree: xr.DataTree) -> Figure:
    """Loss of each step's batch, and the learning rate below it."""
    run = tree["discrete"].dataset
    with styled():
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.set_title("Loss of each step's batch")
        draw_series(above, run["loss"], DISCRETE)
        if "full_loss" in run and run.sizes.get("saved_step"):
            above.plot(run["saved_step"], run["full_loss"], color=COLOURS[1], label="all samples")
            above.legend()
        above.set_ylabel("loss")
        draw_series(below, run["lr"], DISCRETE, logarithmic=False)
        below.set_ylabel("learning rate")
        below.set_xlabel("step")
        return figure


def numbers_plot(tree: xr.DataTree, axes: Panels = None) -> Grid:
    """A small panel for each number that was recorded along steps, with its standard error where there is one."""
    run = tree["discrete"].dataset
    names = numbers_of(run)
    with styled():
        panels = small_panels([(name, long_name(run[name])) for name in names], axes, of="numbers")
        for ax, name in zip(panels, names, strict=True):
            draw_series(ax, run[name], DISCRETE)
            if f"{name}_error" in run:
                steps = run[name][run[name].dims[0]].values
                draw_error(ax, steps, run[name].values, run[f"{name}_error"].values)
            if axes is not None:
                ax.set_xlabel("step")
        if axes is None:
            figure_of(panels).supxlabel("step", fontsize=10)
        return panels


def small_panels(
    numbers: Sequence[tuple[str, str]],
    axes: Panels = None,
    *,
    of: str,
) -> Grid:
    """A small panel for each number, of which the name and the long name are given.

    Two of one long name (of the Hessian and of a Gauss–Newton matrix, say) are told apart by their names.
    """
    lines, long_names = -(-len(numbers) // _COLUMNS), [known for _, known in numbers]
    panels = flat_panels(axes, len(numbers), _COLUMNS, 1.9 * lines + 0.5, of=of)
    for ax, (name, known) in zip(panels, numbers, strict=True):
        title = known if long_names.count(known) == 1 else f"{known} ({name})"
        ax.set_title("\n".join(textwrap.wrap(plain(title), 52)), fontsize=8, fontweight="normal")
        ax.tick_params(labelsize=7)
    return panels


def layers_plot(tree: xr.DataTree) -> Figure:
    """A panel for each series that was recorded of every layer: a line a layer, from the input (dark) on."""
    run = tree["discrete"].dataset
    names, layers = layered(run), [str(name) for name in run["layer"].values]
    with styled():
        figure = Figure(figsize=(WIDTH, 2.6 * len(names) + 0.6), layout="constrained")
        panels = figure.subplots(len(names), 1, squeeze=False, sharex=True).reshape(-1)
        colours = colormaps["viridis"](np.linspace(0.0, 0.9, len(layers)))
        for axes, name in zip(panels, names, strict=True):
            for i, layer in enumerate(layers):
                draw_series(
                    axes,
                    run[name].isel(layer=i),
                    colours[i],
                    label=plain(layer),
                    band=False,
                    logarithmic=False,
                )
            if spans_decades(run[name].values):  # of all layers: one below 0 has no place on such an axis
                axes.set_yscale("log")
            axes.set_title(plain(long_name(run[name])), fontsize=9)
        panels[-1].set_xlabel("step")
        if len(layers) <= _LEGEND:
            lines, labels = panels[0].get_legend_handles_labels()
            figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=8)
        return figure


def numbers_of(run: xr.Dataset) -> list[str]:
    """Names of what is one number at each of its steps, but for how it was made."""
    return [
        str(name)
        for name, one in run.data_vars.items()
        if name not in _NOT_DRAWN
        and len(one.dims) == 1
        and str(one.dims[0]).endswith("step")
        and one.dims[0] != "saved_step"
        and not str(name).endswith(BOOKKEEPING)
        and not (str(name).endswith("_error") and str(name).removesuffix("_error") in run)
        and one.size
    ]


def layered(run: xr.Dataset) -> list[str]:
    """Names of what is one number of each layer at each of its steps."""
    return [
        str(name)
        for name, one in run.data_vars.items()
        if one.dims[1:] == ("layer",) and one.size and not str(name).endswith("_error")
    ]


def draw_series(
    axes: Axes,
    series: xr.DataArray,
    colour: object,
    *,
    at: np.ndarray | None = None,
    label: str | None = None,
    band: bool = True,
    logarithmic: bool = True,
) -> None:
    """A line through the means of as many steps as share a point of it, and a band over their range.

    Args:
        at: where along the axis; at the steps if None.
    """
    steps = np.asarray(series[series.dims[0]].values if at is None else at, dtype=float)
    values = np.asarray(series.values, dtype=float)
    block = -(-len(steps) // _POINTS)
    starts = np.arange(0, len(steps), block)
    counts = np.diff(np.append(starts, len(steps)))
    finite = np.isfinite(values)
    seen = np.add.reduceat(finite, starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.add.reduceat(np.where(finite, values, 0.0), starts) / seen
    places = np.add.reduceat(steps, starts) / counts
    axes.plot(places, means, color=colour, lw=1.2, label=label, marker="o" if len(steps) < 40 else "", ms=2.5)
    if band and block > 1:
        low = np.minimum.reduceat(np.where(finite, values, np.inf), starts)
        high = np.maximum.reduceat(np.where(finite, values, -np.inf), starts)
        shown = seen > 0
        axes.fill_between(places[shown], low[shown], high[shown], color=colour, alpha=0.2, lw=0)
    if logarithmic and spans_decades(values):
        axes.set_yscale("log")


def spans_decades(values: np.ndarray) -> bool:
    """Are all that are finite above 0, and the largest more than 20 times the smallest, as for a logarithmic axis?"""
    drawn = values[np.isfinite(values)]
    return bool(drawn.size and drawn.min() > 0 and drawn.max() > 20 * drawn.min())


def draw_error(
    axes: Axes, at: np.ndarray, values: np.ndarray, error: np.ndarray, colour: str = COLOURS[0]
) -> None:
    """A band of one standard error."""
    axes.fill_between(at, values - error, values + error, color=colour, alpha=0.25, lw=0)


def _has_steps(tree: xr.DataTree) -> bool:
    return bool(tree["discrete"].dataset.sizes.get("step"))


LOSS = Plot(
    "Where many steps share a point of a line, it is their mean, and the band goes from the smallest to the largest.",
    loss_plot,
    _has_steps,
    "run",
)
NUMBERS = Plot(
    "What was recorded along the steps; blue bands: one standard error.",
    lambda tree: figure_of(numbers_plot(tree)),
    lambda tree: _has_steps(tree) and bool(numbers_of(tree["discrete"].dataset)),
    "run",
)
LAYERS = Plot(
    "Each layer's share, from the first (dark) to the last (light).",
    layers_plot,
    lambda tree: _has_steps(tree) and bool(layered(tree["discrete"].dataset)),
    "layers",
)
