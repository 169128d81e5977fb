"""Figures of the charges: recorded, and as their law predicts them."""

from __future__ import annotations

import textwrap

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes

from nm_ode.comparison import SymmetryRow, law_infos, symmetry_summary
from nm_ode.observers.track import time_of
from nm_ode.reporting.formats import exponent
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.followed import law_groups
from nm_ode.reporting.plots.given import Grid, Panels, figure_of, flat_panels
from nm_ode.reporting.plots.paper import FEW, LAW_STYLE, law_legend, spread, unit_of
from nm_ode.reporting.plots.thinned import draw_line
from nm_ode.reporting.style import plain, styled, time_label
from nm_ode.symmetries import KINDS

_PANEL_CHANNELS, _SMALL_CHANNELS = 16, 6
_PANEL_POINTS, _SMALL_POINTS = 300, 100
_COLUMNS = 3


def plotted_law(tree: xr.DataTree) -> str | None:
    """The group of the law to draw with the recorded charges: a differential equation's, if one was predicted."""
    return next(iter(law_groups(tree)), None)


def charges_by_kind(tree: xr.DataTree, axes: Panels = None) -> Grid:
    """One panel a kind of symmetry, as Neural Mechanics draws them: each channel's charge over time, and its law.

    Of each kind the symmetry with the most charges that move, and of those the one whose charges move most for their
    size.
    """
    law, chosen = plotted_law(tree), _one_of_each_kind(tree)
    assert law is not None
    columns = 2 if len(chosen) == 4 else len(chosen)
    lines = -(-len(chosen) // columns)
    with styled():
        panels = flat_panels(axes, len(chosen), columns, 3.2 * lines + 0.4, of="charges_by_kind")
        for ax, row in zip(panels, chosen, strict=True):
            channels = _moving(tree, law, row)
            shown = channels[spread(len(channels), _PANEL_CHANNELS)]
            _draw(ax, tree, law, shown, _PANEL_POINTS, from_start=False)
            names = _wrapped(row, 84 // columns)
            ax.set_title(f"{row.kind}\n" + "\n" * names.count("\n"), pad=8)
            ax.text(0, 1.02, names, transform=ax.transAxes, fontsize=7.5, va="bottom")
            kind = KINDS[row.kind]
            ax.set_ylabel(f"charge {kind.formula}  (units of {unit_of(kind)})", fontsize=9)
        _around(panels, tree, law, own=axes is None)
        return panels


def charges_by_symmetry(tree: xr.DataTree, axes: Panels = None) -> Grid:
    """A small panel for every symmetry that moves: how far its charges have gone, and its law."""
    law, shown = plotted_law(tree), _that_move(tree)
    assert law is not None
    lines = -(-len(shown) // _COLUMNS)
    with styled():
        panels = flat_panels(axes, len(shown), _COLUMNS, 1.9 * lines + 0.9, of="charges_by_symmetry")
        for ax, row in zip(panels, shown, strict=True):
            channels = _moving(tree, law, row)[:_SMALL_CHANNELS]
            _draw(ax, tree, law, channels, _SMALL_POINTS, from_start=True)
            ax.set_title(_wrapped(row, 40, kind=True), fontsize=7, fontweight="normal")
            ax.tick_params(labelsize=7)
            ax.yaxis.get_offset_text().set_fontsize(7)
            ax.text(
                0.97,
                0.05,
                exponent(row.laws[law].together, figures=1),
                transform=ax.transAxes,
                ha="right",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
                zorder=10,
            )
        if axes is None:
            figure_of(panels).supylabel("Q(t) − Q(0)  (units of θ, or θ²)", fontsize=10)
        _around(panels, tree, law, own=axes is None)
        return panels


def _one_of_each_kind(tree: xr.DataTree) -> list[SymmetryRow]:
    law = plotted_law(tree)
    if law is None:
        return []
    chosen: dict[str, tuple[tuple[int, float], SymmetryRow]] = {}
    for row in symmetry_summary(tree):
        moved = min(len(_moving(tree, law, row)), FEW), _relative_motion(tree, law, row)
        if moved[1] > 0 and moved > chosen.get(row.kind, ((0, 0.0), row))[0]:
            chosen[row.kind] = moved, row
    return [row for _, row in chosen.values()]


def _that_move(tree: xr.DataTree) -> list[SymmetryRow]:
    law = plotted_law(tree)
    return [] if law is None else [row for row in symmetry_summary(tree) if len(_moving(tree, law, row))]


def _draw(
    axes: Axes, tree: xr.DataTree, law: str, channels: np.ndarray, points: int, *, from_start: bool
) -> None:
    run, predicted = tree["discrete"].dataset, tree[f"laws/{law}"].dataset
    times = run[time_of(str(run["charge"].dims[0]))].values
    colours = colormaps["viridis"](np.linspace(0.05, 0.85, len(channels)))
    for colour, channel in zip(colours, channels, strict=True):
        recorded = run["charge"].values[:, channel]
        start = recorded[0] if from_start else 0.0
        draw_line(axes, times, recorded - start, points, color=colour, lw=2.4, alpha=0.7)
        law_values = predicted["charge"].values[:, channel]
        draw_line(axes, times, law_values - start, points, **LAW_STYLE)


def _around(panels: Grid, tree: xr.DataTree, law: str, *, own: bool) -> None:
    """What the axis of time and the lines are: once in a new figure, else in each of the panels, and in the last."""
    lines, labels = law_legend(plain(law_infos(tree)[law].title))
    if own:
        figure_of(panels).supxlabel(time_label(tree), fontsize=10)
        figure_of(panels).legend(lines, labels, loc="outside upper right", ncols=2, fontsize=8.5)
        return
    for ax in panels:
        ax.set_xlabel(time_label(tree), fontsize=8.5)
    panels[-1].legend(lines, labels, fontsize=7, frameon=True, framealpha=0.85, edgecolor="none")


def _moving(tree: xr.DataTree, law: str, row: SymmetryRow) -> np.ndarray:
    """Places of the symmetry's charges that move, the farthest first."""
    comparison = tree[f"comparison/{law}"].dataset
    here = np.flatnonzero(
        (comparison["charge_symmetry"].values == row.name) & (comparison["charge_motion"].values > 0)
    )
    return here[np.argsort(-comparison["charge_motion"].values[here])]


def _relative_motion(tree: xr.DataTree, law: str, row: SymmetryRow) -> float:
    moving = _moving(tree, law, row)
    if not len(moving) or row.within:
        return 0.0
    size = np.abs(tree["discrete"].dataset["charge"].values[:, moving]).max(axis=0)
    return float(np.median(tree[f"comparison/{law}"].dataset["charge_motion"].values[moving] / size))


def _wrapped(row: SymmetryRow, width: int, *, kind: bool = False) -> str:
    name = row.name if kind else row.name.removeprefix(f"{row.kind} ")
    return plain("\n".join(textwrap.wrap(name, width, max_lines=2, placeholder=" …")))


BY_KIND = Plot(
    "Charges of one symmetry of each kind, channel by channel, and what their law of motion predicts from the recorded "
    "driver (as Kunin et al. 2021 draw them).",
    lambda tree: figure_of(charges_by_kind(tree)),
    lambda tree: bool(_one_of_each_kind(tree)),
    "symmetries",
)
BY_SYMMETRY = Plot(
    "Every symmetry whose charges move: the channels that move farthest, and their law. In the corner: the law's "
    "largest error over the run, relative to the motion.",
    lambda tree: figure_of(charges_by_symmetry(tree)),
    lambda tree: bool(_that_move(tree)),
    "symmetries",
)
