"""What a user's plots share: what they ask of a tree, and the axes that they give back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.given import Given, Grid, alone
from nm_ode.results import ResultError

One: TypeAlias = Callable[[xr.DataTree, Axes | None], Axes]


def require(tree: xr.DataTree, plot: Plot, why: str) -> None:
    """The plot applies to the tree.

    Raises:
        ArgumentError: it is no tree.
        ResultError: it does not, and why.
    """
    if not isinstance(tree, xr.DataTree):
        raise ArgumentError(f"study must be the tree of a study (nm_ode.open_study); {said(tree)} was given")
    if not plot.applies(tree):
        raise ResultError(f"there is nothing to draw: {why}")


def axes_of(figure: Axes | Figure) -> Grid:
    """Panels of a figure, without empty ones and colour bars."""
    assert isinstance(figure, Figure)
    shown = [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]
    return np.array(shown, dtype=object)


def one(data: Given, ax: Axes | None, plot: Plot, draw: One, why: str) -> Axes:
    """A plot of one panel, in the user's axes or in new ones; raises as `require`."""
    tree = alone(data)
    require(tree, plot, why)
    return draw(tree, ax)


def several(tree: xr.DataTree, plot: Plot, why: str) -> Grid:
    """A plot of several panels; raises as `require`."""
    require(tree, plot, why)
    return axes_of(plot.draw(tree))
