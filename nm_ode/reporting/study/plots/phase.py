"""Phase diagrams: a number of each member over two axes of the study, and what became of those that have none."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon, Rectangle
from numpy.typing import NDArray

from nm_ode.comparison.study.numbers import (
    DIVERGED,
    FAILED,
    MISSING,
    STOPPED,
    WHOLE,
    Quantity,
    flows_of,
    quantities,
    study_numbers,
)
from nm_ode.comparison.study.orders import study_orders
from nm_ode.errors import ArgumentError
from nm_ode.reporting.formats import order, power
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.given import Grid, Panels, figure_of, flat_panels
from nm_ode.reporting.study.plots.plane import Plane, few, places, plane_of
from nm_ode.reporting.style import WIDTH, few_decades, label_lowest, plain, styled, typeset

_RAMP = LinearSegmentedColormap.from_list("ramp", ["#edf4f9", "#b3d4e8", "#5fa8d0", "#0072b2", "#07324f"])
_AROUND = LinearSegmentedColormap.from_list("around", ["#0072b2", "#9cc9e3", "#f7f7f5", "#f2b48a", "#d55e00"])
_MARKED = "#b3261e"
_TEXT_IN = 90  # cells of a panel that have their number written in
_TICKS = 12
_CHARACTERS = 34  # of the labels below a panel that have room side by side


def phase_diagram(
    tree: xr.DataTree, quantity: str | Sequence[str] | None = None, x: str | None = None, y: str | None = None
) -> Figure:
    """The figure of `phase_panels`."""
    return figure_of(phase_panels(tree, quantity, x, y))


def phase_panels(
    tree: xr.DataTree,
    quantity: str | Sequence[str] | None = None,
    x: str | None = None,
    y: str | None = None,
    axes: Axes | Panels = None,
) -> Grid:
    """A panel for each number of the members over two axes.

    A cell without a number has a mark that says why, and no colour. Of further axes (seeds, say) it is the median.

    Args:
        tree: of `nm_ode.open_study`.
        quantity: of `quantities`' keys ("final_loss", "relative_error.gradient", …), "local_order.<flow>", one or
            several; all if None.
        x, y: names of the axes; the case's first two if None, seeds last.
        axes: as many as panels, to draw in.

    Raises:
        ArgumentError: the study has one axis alone, none of this name, or not this quantity; or too few axes.
    """
    numbers = study_numbers(tree)
    plane = plane_of(numbers, x, y)
    if plane is None:
        raise ArgumentError("a phase diagram needs two axes with more than one place")
    shown = _chosen([*quantities(numbers), *_local_orders(numbers)], quantity)
    with styled():
        if axes is None:
            grid = _new(len(shown), numbers.sizes[plane.y])
            drawn = grid.reshape(-1)[: len(shown)]
        else:
            drawn = flat_panels(axes, len(shown), 1, 0.0, of="phase_diagram")
        states, lost = plane.state(numbers["state"]), plane.some_lost(numbers["state"])
        for panel, one in zip(drawn, shown, strict=True):
            _panel(panel, numbers, plane, one, states, lost)
            if axes is not None:
                panel.set_xlabel(plain(plane.x))
                panel.set_ylabel(plain(plane.y))
        if axes is None:
            label_lowest(grid, len(shown), plain(plane.x))
            for panel in grid[:, 0]:
                panel.set_ylabel(plain(plane.y))
        _legend(figure_of(drawn), states, bool(lost.any()))
        return drawn


def _chosen(there: list[Quantity], quantity: str | Sequence[str] | None) -> list[Quantity]:
    """Those that were asked for, in that order."""
    if quantity is None:
        return there
    known = {one.key: one for one in there}
    asked = [quantity] if isinstance(quantity, str) else list(quantity)
    for key in asked:
        if key not in known:
            raise ArgumentError(f"there is no quantity {key!r} in this study; there are {', '.join(known)}")
    return [known[key] for key in asked]


def _new(panels: int, rows: int) -> Grid:
    """Axes in a figure of their own, in rows of two."""
    columns = min(2, panels)
    lines = -(-panels // columns)
    tall = min(max(0.34 * rows + 1.0, 2.2), 4.2)
    wide = WIDTH if columns > 1 else WIDTH * 0.62
    engine = ConstrainedLayoutEngine(hspace=0.08, wspace=0.06)
    figure = Figure(figsize=(wide, tall * lines + 0.45), layout=engine)
    return np.asarray(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True))


def _local_orders(numbers: xr.Dataset) -> list[Quantity]:
    """Of each flow: the order from each learning rate to the next smaller."""
    orders = study_orders(numbers)
    if "local_order" not in orders:
        return []
    return [
        Quantity(
            f"local_order.{name}",
            "order",
            f"{title[:1].upper() + title[1:]}: order",
            "order from here to the next smaller lr",
            orders["local_order"].sel(flow=name, drop=True),
            i,
            limit=float(numbers["expected_order"].sel(flow=name)),
        )
        for i, (name, title) in enumerate(flows_of(numbers))
        if bool(np.isfinite(orders["local_order"].sel(flow=name)).any())
    ]


def _panel(
    axes: Axes,
    numbers: xr.Dataset,
    plane: Plane,
    one: Quantity,
    states: NDArray[np.object_],
    lost: NDArray[np.bool_],
) -> None:
    values = plane.median(one.values)
    norm, ramp = _scale(values, one)
    colours = ScalarMappable(norm, ramp)
    rows, columns = values.shape
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
    size = min(7.5, 42 / columns, 60 / rows + 2)
    written = values.size <= _TEXT_IN
    for (j, i), value in np.ndenumerate(values):
        state = str(states[j, i])
        corner = (i - 0.47, j - 0.46)
        if not np.isfinite(value):
            _empty(axes, corner, state, i, j)
            continue
        shade = ramp(norm(float(value)))
        axes.add_patch(Rectangle(corner, 0.94, 0.92, facecolor=shade, lw=0))
        if written:
            ink = "white" if _luminance(shade) < 0.5 else "#1c1f2b"
            axes.text(i, j, _short(float(value), one), ha="center", va="center", fontsize=size, color=ink)
        if state != WHOLE:
            axes.add_patch(Rectangle(corner, 0.94, 0.92, fill=False, edgecolor=_MARKED, lw=1.2))
        if lost[j, i]:
            axes.add_patch(
                Polygon(
                    [(i + 0.47, j + 0.46), (i + 0.25, j + 0.46), (i + 0.47, j + 0.2)], color=_MARKED, lw=0
                )
            )
    _ticks(axes, numbers, plane)
    axes.set_title(typeset("\n".join(textwrap.wrap(one.title, 44))), fontsize=9)
    bar = axes.figure.colorbar(colours, ax=axes, shrink=0.92, aspect=18, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.minorticks_off()
    if isinstance(norm, LogNorm):
        few_decades(bar.ax)


def _ticks(axes: Axes, numbers: xr.Dataset, plane: Plane) -> None:
    names = places(numbers, plane.x)
    labels = [names[k][:18] for k in plane.columns]
    shown = few(labels, _TICKS)
    crowded = max(map(len, labels)) * len(shown) > _CHARACTERS
    axes.set_xticks(
        shown,
        [labels[k] for k in shown],
        rotation=30 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor",
    )
    names = places(numbers, plane.y)
    labels = [names[k][:18] for k in plane.rows]
    shown = few(labels, _TICKS)
    axes.set_yticks(shown, [labels[k] for k in shown])


def _empty(axes: Axes, corner: tuple[float, float], state: str, i: int, j: int) -> None:
    """A cell without a number: why."""
    if state == WHOLE:
        axes.add_patch(Rectangle(corner, 0.94, 0.92, facecolor="#f3f3f1", lw=0))
        return
    if state == MISSING:
        axes.add_patch(Rectangle(corner, 0.94, 0.92, fill=False, edgecolor="#aab", lw=0.8, ls=(0, (2, 2))))
        return
    axes.add_patch(
        Rectangle(corner, 0.94, 0.92, facecolor="#f3f3f1", edgecolor="#c9c9c4", lw=0, hatch="////")
    )
    mark = {FAILED: "x", DIVERGED: "^", STOPPED: "s"}[state]
    axes.plot([i], [j], marker=mark, ms=6, mew=1.6, color=_MARKED, fillstyle="none", lw=0)


def _legend(figure: Figure, states: NDArray[np.object_], some_lost: bool) -> None:
    """What the marks mean, of those that are there."""
    there = set(states.reshape(-1).tolist())
    mark = {"color": _MARKED, "fillstyle": "none", "lw": 0, "ms": 6, "mew": 1.6}
    handles: list[Line2D | Patch] = []
    if DIVERGED in there:
        handles.append(Line2D([], [], marker="^", label="the run diverged", **mark))  # type: ignore[arg-type]
    if STOPPED in there:
        handles.append(Line2D([], [], marker="s", label="a solver gave up", **mark))  # type: ignore[arg-type]
    if FAILED in there:
        handles.append(Line2D([], [], marker="x", label="failed", **mark))  # type: ignore[arg-type]
    if MISSING in there:
        handles.append(Patch(fill=False, edgecolor="#aab", ls=(0, (2, 2)), label="not run"))
    if there & {DIVERGED, STOPPED}:
        handles.append(Patch(fill=False, edgecolor=_MARKED, lw=1.2, label="red frame: not to its end"))
    if some_lost:
        handles.append(Patch(color=_MARKED, lw=0, label="red corner: some of its members are not there"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5)


def _scale(values: NDArray[np.float64], one: Quantity) -> tuple[Normalize, LinearSegmentedColormap]:
    known = values[np.isfinite(values)]
    if not known.size:
        return Normalize(0, 1), _RAMP
    low, high = float(known.min()), float(known.max())
    if one.limit is not None and math.isfinite(one.limit):
        if one.kind == "order":
            reach = min(max(abs(low - one.limit), abs(high - one.limit), 0.5), 2.0)
            return TwoSlopeNorm(one.limit, one.limit - reach, one.limit + reach), _AROUND
        if low < one.limit:
            return TwoSlopeNorm(one.limit, min(low, 0.0), max(high, 1.25 * one.limit)), _AROUND
    if one.logarithmic and low > 0 and high > 8 * low:
        return LogNorm(low, high), _RAMP
    return Normalize(low, high if high > low else low + (abs(low) or 1.0)), _RAMP


def _luminance(shade: tuple[float, float, float, float]) -> float:
    red, green, blue, _ = shade
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _short(value: float, one: Quantity) -> str:
    """Two figures, in the way of its kind."""
    if one.kind == "order":
        return order(value).replace("-", "−")
    if one.kind == "error" or (value and not 1e-2 <= abs(value) < 1e3):
        return power(value)
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


PHASE = Plot(
    "Each cell is a member, or the median of those that differ in further axes. Cells without a number are hatched, "
    "with a mark that says why; where nothing was run they are outlined, and grey where nothing was to be measured. "
    "Orders: from each learning rate to the next smaller, white where it is theory's; sharpness: white at the limit of "
    "stability.",
    phase_diagram,
    lambda tree: plane_of(study_numbers(tree)) is not None and bool(quantities(study_numbers(tree))),
    "study",
)
