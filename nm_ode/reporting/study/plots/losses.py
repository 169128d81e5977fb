"""The loss of every member against flow time."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap

from nm_ode.comparison.study.numbers import axes_of, study_numbers
from nm_ode.errors import ArgumentError
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.study.plots.plane import few, places, positions, repeats
from nm_ode.reporting.style import COLOURS, few_decades, panel, plain, styled

_MOST = 2000  # lines


def loss_curves(tree: xr.DataTree, axes: Axes | None = None, by: str | None = None) -> Axes:
    """A line for each member, in the colour of its place along one axis.

    Args:
        tree: of `nm_ode.open_study`.
        axes: to draw in.
        by: the axis that gives the colours; the study's first if None.

    Raises:
        ArgumentError: there is no such axis.
    """
    numbers = study_numbers(tree)
    names = axes_of(numbers)
    longer = [name for name in names if numbers.sizes[name] > 1] or [names[0]]
    by = by or min(longer, key=repeats)
    if by not in names:
        raise ArgumentError(f"the study has no axis {by!r}; its axes are {', '.join(names)}")
    losses, times = _series(tree, names)
    order = np.argsort(positions(numbers, by)[0], kind="stable")  # numbers rise from dark to light
    place = np.broadcast_to(
        np.argsort(order).reshape([-1 if name == by else 1 for name in names]),
        numbers["state"].shape,
    ).reshape(-1)
    with styled():
        axes = panel("Loss of every member", 3.9, given=axes)
        shades = _shades(numbers.sizes[by], alike=repeats(by))
        lines, colours = [], []
        for i in range(0, len(losses), max(1, -(-len(losses) // _MOST))):
            known = np.isfinite(losses[i]) & np.isfinite(times[i])
            if known.any():
                lines.append(np.column_stack([times[i][known], losses[i][known]]))
                colours.append(shades(int(place[i])))
        thin = 1.5 if len(lines) < 30 else 1.0 if len(lines) < 200 else 0.6
        axes.add_collection(
            LineCollection(lines, colors=colours, lw=thin, alpha=0.85 if len(lines) < 30 else 0.6)
        )
        axes.autoscale_view()
        drawn = np.concatenate([line[:, 1] for line in lines]) if lines else np.empty(0)
        if drawn.size and drawn.min() > 0 and drawn.max() > 8 * drawn.min():
            axes.set_yscale("log")
            axes.autoscale_view()
            few_decades(axes)
        axes.set_xlabel("flow time t")
        axes.set_ylabel("loss over all samples")
        _bar(axes, by, [places(numbers, by)[k] for k in order], shades)
        return axes


def _series(tree: xr.DataTree, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Losses and times, (member, saved step); NaN beyond a member's end."""
    run = tree["discrete"].dataset
    loss = run["full_loss"].reset_coords(drop=True)
    (along,) = (dim for dim in loss.dims if dim not in names)
    time = run["saved_time"].reset_coords(drop=True) if "saved_time" in run.variables else run[along]
    time, loss = xr.broadcast(time, loss)
    steps = loss.sizes[along]
    losses, times = (
        one.transpose(*names, along).values.astype(float).reshape(-1, steps) for one in (loss, time)
    )
    return losses, times


def _shades(size: int, *, alike: bool) -> LinearSegmentedColormap:
    if alike:
        return LinearSegmentedColormap.from_list("alike", [COLOURS[0]] * 2, N=max(size, 2))
    found = colormaps["viridis"](np.linspace(0.0, 0.92, max(size, 2)))
    return LinearSegmentedColormap.from_list("places", found, N=max(size, 2))


def _bar(axes: Axes, by: str, labels: list[str], shades: LinearSegmentedColormap) -> None:
    """What the colours mean: a box a place."""
    size = len(labels)
    if size < 2 or repeats(by):
        return
    bar = axes.figure.colorbar(
        ScalarMappable(BoundaryNorm(np.arange(-0.5, size), shades.N), shades), ax=axes, aspect=28, pad=0.02
    )
    shown = few(labels, 12)
    bar.set_ticks(shown, labels=[labels[k][:18] for k in shown])
    bar.set_label(plain(by))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0)
    bar.ax.minorticks_off()


def _has_losses(tree: xr.DataTree) -> bool:
    if "discrete" not in tree.children or "full_loss" not in tree["discrete"].dataset:
        return False
    loss, axes = tree["discrete"].dataset["full_loss"], axes_of(study_numbers(tree))
    return any(size > 1 for dim, size in loss.sizes.items() if dim not in axes)


LOSSES = Plot(
    "The loss over all samples of each member's run; one that diverged ends where it did.",
    loss_curves,
    _has_losses,
    "losses",
)
