"""What an entry of the registry of plots says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Place = Literal[
    "orders",
    "stability",
    "edge",
    "plots",
    "symmetries",
    "observed",
    "run",
    "layers",
    "spectra",
    "study",
    "losses",
]


@dataclass(frozen=True)
class Plot:
    """A plot of a study's tree.

    Attributes:
        caption: below the plot, in the report.
        draw: the axes of one panel, or a figure of several. Called where `applies` is true.
        applies: has the tree what the plot shows?
        place: section of the report.

    Example:
        >>> from nm_ode.reporting import PLOTS
        >>> PLOTS["loss"].place, PLOTS["charges_by_kind"].place
        ('plots', 'symmetries')
    """

    caption: str
    draw: Callable[[xr.DataTree], Axes | Figure]
    applies: Callable[[xr.DataTree], bool]
    place: Place = "plots"

    def figure(self, tree: xr.DataTree) -> Figure:
        """The whole figure."""
        drawn = self.draw(tree)
        figure = drawn if isinstance(drawn, Figure) else drawn.figure
        assert isinstance(figure, Figure)
        return figure
