"""What all figures have in common."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
import xarray as xr
from matplotlib.figure import Figure

WIDTH = 8.2  # inches
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#667",
    "axes.labelcolor": "#223",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ec",
    "grid.linewidth": 0.8,
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "nm_ode",
    "xtick.color": "#445",
    "ytick.color": "#445",
}
# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ((0, ()), (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 2, 2)), (0, (1, 1)), (0, (9, 3)))
DISCRETE = "#222233"


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's settings inside; a user's own stay as they are."""
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same data."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def time_label(tree: xr.DataTree) -> str:
    """Flow time, with what it is."""
    run = tree["discrete"].dataset
    if (run["lr"] != run["lr"][0]).any():
        return "flow time t = Σ lr"
    return f"flow time t = lr · step  (lr = {run.attrs['lr']:g})"
