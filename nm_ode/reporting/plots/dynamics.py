"""Individual parameters beside the charges of their channels: the ones wander, the others follow a law."""

from __future__ import annotations

import re

import numpy as np
import xarray as xr
from matplotlib import colormaps
from numpy.typing import NDArray

from nm_ode.arguments import as_count, said
from nm_ode.charges import LawError
from nm_ode.errors import ArgumentError
from nm_ode.parameters import Layout, Slot
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.followed import Followed, followed
from nm_ode.reporting.plots.given import Given, Grid, Panels, alone, figure_of, panels, study_axes
from nm_ode.reporting.plots.paper import above_panel, charge_label, draw_charges, law_legend, merit, spread
from nm_ode.reporting.plots.thinned import draw_line
from nm_ode.reporting.style import plain, styled, time_label
from nm_ode.results import ResultError, run_info
from nm_ode.symmetries import KINDS, Symmetry
from nm_ode.symmetries.names import BETWEEN

Array = NDArray[np.float64]

_LARGEST = 2**26  # numbers of theta that a report reads for this
_POINTS = 300
_FEWEST = 3  # saved steps


def parameters_and_channels(
    data: Given,
    *,
    symmetry: str | Symmetry | None = None,
    law: str | None = None,
    parameters: int = 40,
    channels: int = 12,
    axes: Panels = None,
) -> Grid:
    """Parameters of a symmetry over flow time, and beside them its charges with what their law predicts.

    Above each panel: the length of the way that is gone at the saved steps over its range, the median of all that moves
    (1 where a number only rises or falls), so that the one can be held against the other.

    Args:
        data: a study's tree or a run, whose parameters were kept at saved steps.
        symmetry: the symmetry itself, as `find_symmetries` gives it, of which exactly the entries that take part are
            drawn; or its name, of which those of the layers in it are; a quadratic one that moves if None.
        law: whose predictions are drawn; a differential equation's if None.
        parameters, channels: at most so many lines in each panel, spread evenly.
        axes: two, to draw in.

    Returns:
        Two Axes: of the parameters, and of the charges.

    Raises:
        ArgumentError: there is no such symmetry or law, or a name that does not say which parameters it is of.
        LawError: no charges were recorded, or no law describes them.
        ResultError: the parameters were not kept, or neither a tree nor a run.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
        >>> sgd = nm_ode.SGD(lr=0.1, momentum=0.9)
        >>> run = nm_ode.train(problem, sgd, steps=20, save_every=2, observe=[charges])
        >>> axes = nm_ode.plots.parameters_and_channels(run)
        >>> [len(ax.lines) > 0 for ax in axes]
        [True, True]
    """
    parameters, channels = (
        as_count(count, name, least=1) for count, name in ((parameters, "parameters"), (channels, "channels"))
    )
    tree = alone(data)
    run = tree["discrete"].dataset
    why = _not_kept(run)
    if why:
        raise ResultError(why)
    (charges,) = followed(tree, law, "data")
    name, entries = _entries(charges, symmetry, run_info(run).layout)
    exact = isinstance(symmetry, Symmetry)
    times = run["saved_time"].values.astype(float)
    shown = entries[spread(len(entries), parameters)]
    thetas = run["theta"].isel(param=shown).values.astype(float)
    there = charges.channels(name)
    chosen = there[spread(len(there), channels)]
    with styled():
        left, right = panels(axes, (1, 2), 3.6, of="parameters_and_channels").reshape(-1)
        colours = colormaps["viridis"](np.linspace(0.05, 0.85, thetas.shape[1]))
        for shade, values in zip(colours, thetas.T, strict=True):
            draw_line(left, times, values, _POINTS, color=shade, lw=0.8, alpha=0.8)
        left.set_title("individual parameters", pad=16)
        left.set_ylabel("θ", fontsize=9)
        draw_charges(right, charges, chosen)
        right.set_title("charges of their channels", pad=16)
        right.set_ylabel(charge_label(KINDS[charges.symmetries[name]]), fontsize=9)
        at_saved = run["saved_charge"].values[:, there] if "saved_charge" in run else np.empty((0, 0))
        names = f"{len(shown)} of {len(entries)} " + ("that take part" if exact else "in its layers")
        above_panel(left, names, _said_of(thetas))
        above_panel(right, name, _said_of(at_saved))
        for panel in (left, right):
            panel.set_xlabel(time_label(tree), fontsize=8.5)
            panel.tick_params(labelsize=8)
        if axes is None:
            handles, labels = law_legend(plain(charges.title))
            left.figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8.5)
        return np.array([left, right], dtype=object)


def way_over_range(values: Array) -> float:
    """Σ|Δ| over max − min of each column, the median of those that move; NaN if none does."""
    if len(values) < _FEWEST or not values.shape[1]:
        return float("nan")
    spans = np.ptp(values, axis=0)
    moving = spans > 1e-12 * np.abs(values).max(axis=0)
    if not moving.any():
        return float("nan")
    return float(np.median(np.abs(np.diff(values[:, moving], axis=0)).sum(axis=0) / spans[moving]))


def _said_of(values: Array) -> str:
    ratio = way_over_range(values)
    return f"way / range = {ratio:.3g}" if np.isfinite(ratio) else ""


def _not_kept(run: xr.Dataset) -> str:
    """Why the run's parameters cannot be drawn; empty where they can."""
    if "theta" not in run:
        if "theta_sketch" in run:
            return (
                "the run kept sketches of its parameters, not the parameters themselves: train with "
                "Sketch(keep_theta=True), or without a sketch"
            )
        return "the run did not keep its parameters: train with save_every"
    if len(run["theta"]) < _FEWEST:
        return (
            f"the run kept its parameters {len(run['theta'])} times, and {_FEWEST} are the fewest to draw: train with "
            "a smaller save_every, or for more steps"
        )
    return ""


def _entries(
    charges: Followed, symmetry: str | Symmetry | None, layout: Layout
) -> tuple[str, NDArray[np.int_]]:
    """The symmetry's name, and places in theta.

    Raises:
        ArgumentError, LawError: as `parameters_and_channels`.
    """
    there = charges.symmetries
    if isinstance(symmetry, Symmetry):
        name = charges.require(symmetry.name)
        starts = {slot.name: slot.start for slot in layout.slots}
        if not set(symmetry.parameters) <= set(starts):
            raise ArgumentError(f"{symmetry.name!r} is of another model: the run has none of its parameters")
        places = [part.entries.cpu().numpy() + starts[part.parameter] for part in symmetry.parts]
        return name, np.unique(np.concatenate(places))
    if symmetry is None:
        moving = [name for name in there if charges.moves(name)]
        if not moving:
            raise LawError("no charge of the run moves but by rounding: name a symmetry to have it drawn")
        known = [name for name in moving if slots_of(name, there[name], layout)] or moving
        symmetry = max(known, key=lambda name: (KINDS[there[name]].form.degree == 2, *merit(name, [charges])))
    elif not isinstance(symmetry, str):
        raise ArgumentError(f"symmetry must be a symmetry or the name of one; {said(symmetry)} was given")
    name = charges.require(symmetry)
    slots = slots_of(name, there[name], layout)
    if not slots:
        raise ArgumentError(
            f"the name {name!r} does not say which parameters it is of: give the symmetry itself, as "
            "nm_ode.find_symmetries gives it"
        )
    return name, np.concatenate([np.arange(slot.start, slot.start + slot.size) for slot in slots])


def slots_of(name: str, kind: str, layout: Layout) -> list[Slot]:
    """Parameters of the layers, or those themselves, that a symmetry's name is made of; none if it has other words."""
    words = re.split(f", |{BETWEEN}", name.removeprefix(kind).strip())
    found = {word: [slot for slot in layout.slots if word in (slot.layer, slot.name)] for word in words}
    chosen = {slot.start: slot for slots in found.values() for slot in slots}
    return [chosen[start] for start in sorted(chosen)] if all(found.values()) else []


def _applies(tree: xr.DataTree) -> bool:
    if "laws" not in tree.children or not tree["laws"].children or study_axes(tree) is not None:
        return False
    run = tree["discrete"].dataset
    if "charge" not in run or _not_kept(run) or run["theta"].size > _LARGEST:
        return False
    (charges,) = followed(tree)
    layout = run_info(run).layout
    return any(
        charges.moves(name) and slots_of(name, kind, layout) for name, kind in charges.symmetries.items()
    )


PARAMETERS_AND_CHANNELS = Plot(
    "Parameters of the layers of one symmetry at the saved steps, and beside them its charges, one a channel, with "
    "what their law predicts. Way / range: how far a number has gone in all, over how far apart its largest and "
    "smallest values are (the median); 1 where it only rises or falls.",
    lambda tree: figure_of(parameters_and_channels(tree)),
    _applies,
    "symmetries",
)
