"""What all figures have in common."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, Literal

import matplotlib
import numpy as np
import xarray as xr
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.results import run_info

WIDTH = 8.2  # inches
_FORMULAS = 1000
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
    "axes.formatter.useoffset": False,
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
STYLE: dict[str, Any] = {
    **_STYLE,
    "axes.prop_cycle": cycler(color=COLOURS),
    "figure.constrained_layout.use": True,
}
"""matplotlib's settings for a user's own figure in the style of these: `plt.style.use(nm_ode.plots.STYLE)`.

Example:
    >>> import matplotlib
    >>> import nm_ode
    >>> with matplotlib.rc_context(nm_ode.plots.STYLE):
    ...     print(matplotlib.rcParams["axes.spines.top"])
    False
"""
DASHES = ((0, ()), (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 2, 2)), (0, (1, 1)), (0, (9, 3)))
DISCRETE = "#222233"


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's settings inside; a user's own stay as they are."""
    # Of a run that diverged the limits of an axis may be too large for a number: matplotlib goes on without.
    with matplotlib.rc_context(_STYLE), np.errstate(over="ignore", invalid="ignore"):  # type: ignore[arg-type]
        yield


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same data."""
    text = io.StringIO()
    _remember_formulas()
    with styled(), _laid_out_alone(figure), warnings.catch_warnings():
        # A name may be in any script; a letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


@contextmanager
def _laid_out_alone(figure: Figure) -> Iterator[None]:
    """matplotlib draws a figure that has a layout twice, the first time into nothing: then the layout is all of it."""
    draw, engine = figure.draw, figure.get_layout_engine()
    if engine is None:
        yield
        return

    def laid_out(renderer: RendererBase) -> None:
        if figure.get_layout_engine() is engine:  # which saving takes away between the two
            engine.execute(figure)
        else:
            draw(renderer)

    figure.draw = laid_out  # type: ignore[method-assign]
    try:
        yield
    finally:
        del figure.draw


@cache
def _remember_formulas() -> None:
    """matplotlib knows of 50 formulas how they are set; tick labels of a page are more, and those of the next alike."""
    parse: Any = getattr(MathTextParser, "_parse_cached", None)
    if hasattr(parse, "cache_parameters") and hasattr(parse, "__wrapped__"):
        MathTextParser._parse_cached = lru_cache(_FORMULAS)(parse.__wrapped__)  # type: ignore[attr-defined]


def plain(name: str) -> str:
    """A name as text: dollars begin no formula, and what begins with '_' is in the legend too."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def typeset(text: str) -> str:
    """`plain`, with λ_max as a formula."""
    return plain(text).replace("λ_max", r"$\lambda_{\max}$")


def cut(name: str, most: int) -> str:
    """A name of at most so many characters: what is too long ends with an ellipsis."""
    return name if len(name) <= most else name[: max(most - 1, 1)].rstrip() + "…"


def room(axes: Axes, size: float) -> int:
    """How many letters of a size, in points, there is room for above the axes, which a layout will make wider."""
    wider = 1.1 if axes.figure.get_layout_engine() is not None else 1.0
    return int(wider * axes.bbox.width / axes.figure.dpi * 72 / (0.57 * size))


def panel(title: str, height: float = 3.8, *, given: Axes | None = None) -> Axes:
    """The axes that a user gave, or empty ones in a figure of their own, `height` inches high.

    Raises:
        ArgumentError: what was given is no Axes.
    """
    if given is not None:
        if not isinstance(given, Axes):
            raise ArgumentError(f"ax must be matplotlib's Axes; {said(given)} was given")
        return given
    axes = Figure(figsize=(WIDTH, height), layout="constrained").subplots()
    axes.set_title(title)
    return axes


def logarithmic(axes: Axes, axis: Literal["x", "y"]) -> None:
    """A logarithmic scale; linear where nothing that was drawn is positive, for which matplotlib has no ticks."""
    drawn = [np.asarray(getattr(line, f"get_{axis}data")(), dtype=float) for line in axes.lines]
    if any((values > 0).any() for values in drawn):
        axes.set(**{f"{axis}scale": "log"})


def few_decades(axes: Axes) -> None:
    """A logarithmic y axis with numbers at 1, 2, 5, 10 … where it spans so little that powers of ten were too few."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and low > 1e-3 and high < min(300 * low, 1e4):
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def ticks_at(axes: Axes, values: ArrayLike) -> None:
    """Numbers below a logarithmic x axis at these values alone."""
    axes.set_xticks(np.asarray(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def label_lowest(grid: NDArray[np.object_], panels: int, label: str) -> None:
    """Of a grid of which so many panels are used: a label below the lowest of each column; the others are empty."""
    for i, axes in enumerate(grid.reshape(-1)):
        if i >= panels:
            axes.set_axis_off()
        elif i + grid.shape[1] >= panels:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(label)


def colour(i: int) -> str:
    """Of the i-th flow."""
    return COLOURS[i % len(COLOURS)]


def dash(i: int) -> tuple[int, tuple[int, ...]]:
    """Of the i-th flow's line."""
    return DASHES[i % len(DASHES)]


def time_label(tree: xr.DataTree) -> str:
    """Flow time, and how it comes from the steps of the run."""
    grid = run_info(tree["discrete"].dataset).grid
    if not grid.steps:
        return "flow time t"
    if grid.is_constant:
        step = float(grid.times[1] - grid.times[0])
        if math.isclose(step, grid.lr[0]):
            return f"flow time t = lr · step  (lr = {step:g})"
        return f"flow time t = {step:g} · step  (lr = {grid.lr[0]:g})"
    ratio = float(grid.times[-1] / grid.lr.sum())
    return "flow time t = Σ lr" if math.isclose(ratio, 1) else f"flow time t = {ratio:g} · Σ lr"
