"""Small multiples: each number of the members over each axis of the study."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nm_ode.comparison.study.numbers import Quantity, axes_of, quantities, study_numbers
from nm_ode.errors import ArgumentError
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.study.plots.plane import few, is_named, places, positions, repeats
from nm_ode.reporting.style import (
    COLOURS,
    DISCRETE,
    WIDTH,
    colour,
    few_decades,
    plain,
    styled,
    ticks_at,
    typeset,
)

_COLUMNS = 4
_TICKS = 6
_BINS = 16
_POINTS = 4000  # of one panel that are drawn as points


def over_axes(tree: xr.DataTree, quantity: str | None = None) -> Figure:
    """A row for each number, a column for each axis: every member as a point, and a line through the medians.

    Args:
        tree: of `nm_ode.open_study`.
        quantity: one of `quantities`' keys; all if None.

    Raises:
        ArgumentError: there is no such quantity, or none at all.
    """
    numbers = study_numbers(tree)
    shown = [one for one in quantities(numbers) if quantity in (None, one.key)]
    if not shown:
        raise ArgumentError(
            "there is no such quantity in this study" if quantity else "no member has a number"
        )
    axes = drawn_axes(numbers)
    with styled():
        figure = Figure(figsize=(WIDTH, 1.95 * len(shown) + 0.5), layout="constrained")
        # Of repetitions alone their distribution is what there is to see.
        beside = int(len(axes) == 1 and repeats(axes[0]))
        grid = figure.subplots(
            len(shown),
            len(axes) + beside,
            squeeze=False,
            sharey="row",
            sharex="col",
            width_ratios=[4] * len(axes) + [1] * beside,
        )
        for row, one in zip(grid, shown, strict=True):
            for panel, axis in zip(row, axes, strict=False):
                _panel(panel, numbers, one, axis)
            row[0].set_title(typeset(one.title), fontsize=9)
            row[0].set_ylabel(typeset(one.label.replace("  (", "\n(")), fontsize=8.5)
            _scale(row, one)
            if beside:
                _distribution(row[-1], one)
        for panel, axis in zip(grid[-1], [*axes, *["members"] * beside], strict=True):
            panel.set_xlabel(plain(axis))
        return figure


def drawn_axes(numbers: xr.Dataset) -> list[str]:
    """The axes that have more than one place, or the first; as many as there is room for."""
    axes = axes_of(numbers)
    return [name for name in axes if numbers.sizes[name] > 1][:_COLUMNS] or [axes[0]]


def _panel(panel: Axes, numbers: xr.Dataset, one: Quantity, axis: str) -> None:
    where, logarithmic = positions(numbers, axis)
    values = one.values.transpose(axis, ...).values.reshape(len(where), -1).astype(float)
    if one.logarithmic:
        values = np.where(values > 0, values, np.nan)
    shade = DISCRETE if one.flow is None else colour(one.flow)
    alone = values.shape[1] == 1
    x = np.broadcast_to(where[:, None], values.shape)
    known = np.isfinite(values)
    chosen = np.flatnonzero(known.reshape(-1))
    chosen = chosen[:: max(1, -(-len(chosen) // _POINTS))]
    panel.plot(
        x.reshape(-1)[chosen],
        values.reshape(-1)[chosen],
        marker="o",
        ms=4 if alone else 3,
        lw=0,
        color=shade,
        mec="none",
        alpha=0.9 if alone else 0.32,
    )
    if repeats(axis):
        low, middle, high = np.quantile(values[known], [0.25, 0.5, 0.75])
        panel.axhspan(low, high, color=shade, alpha=0.1, lw=0)
        panel.axhline(middle, color=shade, lw=1.4)
    else:
        order = np.argsort(where, kind="stable")
        there = [k for k in order if known[k].any()]
        medians = [float(np.median(values[k][known[k]])) for k in there]
        panel.plot(where[there], medians, color=shade, lw=1.0 if alone else 1.8, alpha=0.5 if alone else 1.0)
    if one.limit is not None:
        panel.axhline(one.limit, color=COLOURS[1], lw=1.1, ls=(0, (4, 2)))
    _ticks(panel, numbers, axis, where, logarithmic)


def _ticks(
    panel: Axes, numbers: xr.Dataset, axis: str, where: NDArray[np.float64], logarithmic: bool
) -> None:
    labels = places(numbers, axis)
    panel.tick_params(which="both", labelsize=8)
    if is_named(numbers, axis):
        shown = few(labels, _TICKS)
        panel.set_xticks([where[k] for k in shown], [labels[k][:14] for k in shown], rotation=20, ha="right")
        panel.set_xlim(-0.5, len(where) - 0.5)
        return
    if logarithmic:
        panel.set_xscale("log")
        shown = few(labels, _TICKS)
        ticks_at(panel, [where[k] for k in shown])


def _scale(row: NDArray[np.object_], one: Quantity) -> None:
    known = one.values.values[np.isfinite(one.values.values)]
    if (
        one.logarithmic
        and known.size
        and known.min() > 0
        and known.max() > (3 if one.kind == "error" else 8) * known.min()
    ):
        for panel in row:
            panel.set_yscale("log")
        few_decades(row[0])
    elif one.kind == "sharpness":
        row[0].set_ylim(bottom=0)


def _distribution(panel: Axes, one: Quantity) -> None:
    """How many members lie where, beside their points."""
    known = one.values.values[np.isfinite(one.values.values)].astype(float)
    low, high = float(known.min()), float(known.max())
    if high - low <= 1e-9 * abs(high):
        bins = np.array([low, high]) + np.array([-0.02, 0.02]) * (abs(low) or 1.0)
    elif panel.get_yscale() == "log":
        bins = np.geomspace(low, high, _BINS + 1)
    else:
        bins = np.linspace(low, high, _BINS + 1)
    shade = DISCRETE if one.flow is None else colour(one.flow)
    panel.hist(known, bins=bins.tolist(), orientation="horizontal", color=shade, alpha=0.55)
    panel.tick_params(which="both", labelsize=8)


OVER_AXES = Plot(
    "Every member is a point; the line goes through the medians over the other axes. Over seeds, whose order means "
    "nothing: the median of all, and a band from quartile to quartile.",
    over_axes,
    lambda tree: bool(quantities(study_numbers(tree))),
    "study",
)
