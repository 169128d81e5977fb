"""The paper's grid: charges and their law, kinds of symmetry in columns, runs in rows (Kunin et al. 2021)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from nm_ode.arguments import as_count, said
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.reporting.formats import exponent
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.followed import Followed, followed
from nm_ode.reporting.plots.given import Given, Grid, Panels, figure_of, panels, study_axes
from nm_ode.reporting.plots.thinned import draw_line
from nm_ode.reporting.style import cut, plain, room, styled
from nm_ode.symmetries import KINDS, Symmetry, SymmetryKind

Runs: TypeAlias = Given | Sequence[Given | Sequence[Given]] | Mapping[str, Given | Sequence[Given]]

_ROWS = 8
_POINTS = 300
_WIDE = 20  # letters of a title, with which it has its formula beside it
_LARGEST = 2**27  # numbers that a page reads for this
FEW = 8
"""Charges, with fewer of which another symmetry makes a better panel."""
LAW_STYLE: dict[str, Any] = {"color": "black", "lw": 0.9, "ls": (0, (4, 3))}


@dataclass(frozen=True, eq=False)
class _Row:
    """A row of the grid: a run, or several of which each kind is taken from the first that has it."""

    label: str
    runs: list[Followed]


def charge_grid(
    runs: Runs,
    *,
    law: str | None = None,
    symmetries: Sequence[str | Symmetry] | None = None,
    channels: int = 12,
    axes: Panels = None,
) -> Grid:
    """Recorded charges and what their law predicts: a column for each kind of symmetry, a row for each run.

    Args:
        runs: a study's tree or a run; several of them; or a dict of them by the label of their row. A row may itself be
            a list of runs, as of a network with BatchNorm and one without: each kind of symmetry is then taken from the
            first that has it. Of a study of many members each that has both is a row. Without labels a row says what
            sets it apart.
        law: whose predictions are drawn; a differential equation's, where one was predicted, if None.
        symmetries: those to draw or their names, a column each. If None of each kind the one that most rows have, with
            the most charges that move.
        channels: at most so many charges a panel, spread evenly over the symmetry's.
        axes: as many as panels, to draw in.

    Returns:
        Axes, shape (rows, columns).

    Raises:
        ArgumentError: no runs or more than 8 rows of them, or a symmetry or a law that none of them has.
        LawError: a run without charges, or one that no law describes.
        ResultError: a tree that is of no study.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1, momentum=0.9), steps=20, observe=[charges])
        >>> axes = nm_ode.plots.charge_grid({"momentum": run})
        >>> axes.shape
        (1, 2)
    """
    channels = as_count(channels, "channels", least=1)
    rows = _rows(runs, law)
    columns = _columns(rows, symmetries)
    shape = len(rows), len(columns)
    with styled():
        grid = panels(axes, shape, 2.05 * len(rows) + 1.0, of="charge_grid")
        for i, (line, row) in enumerate(zip(grid, rows, strict=True)):
            for panel, column in zip(line, columns, strict=True):
                _panel(panel, row, column, channels, above=i == 0)
            titles = list(dict.fromkeys(run.title for run in row.runs))
            line[0].set_ylabel(plain("\n".join([*_label(row.label), *_label(", ".join(titles))])), fontsize=8)
        for line in grid.T:
            lowest = [panel for panel in line if panel.axison][-1]
            lowest.set_xlabel("flow time t", fontsize=9)
        _legend(grid, own=axes is None)
        return grid


def _label(text: str) -> list[str]:
    """Lines for the height of a panel, broken at commas before anywhere else."""
    lines: list[str] = []
    for part in text.split(", "):
        joined = f"{lines[-1]}, {part}" if lines else part
        if lines and len(joined) <= 28:
            lines[-1] = joined
        else:
            lines += textwrap.wrap(part, 34) or [""]
    return [line for line in lines if line]


@dataclass(frozen=True)
class _Column:
    """A kind of symmetry, and its symmetries in the order in which they are looked for in a run."""

    kind: str
    names: list[str]

    def of(self, row: _Row) -> tuple[Followed, str] | None:
        """Where the row has it."""
        for run in row.runs:
            for name in self.names:
                if name in run.symmetries:
                    return run, name
        return None


def _panel(panel: Axes, row: _Row, column: _Column, most: int, *, above: bool) -> None:
    if above:
        kind = KINDS[column.kind]
        wide = room(panel, 11) > _WIDE
        # Words behind a formula have no room in a narrow panel.
        formula = kind.formula if wide else kind.formula[: kind.formula.rfind("$") + 1]
        title = f"{column.kind},  {formula}" if wide else f"{column.kind}\n{formula}"
        panel.set_title((title if formula else column.kind) + "\n", pad=4, fontsize=11 if wide else 9)
    found = column.of(row)
    if found is None:
        panel.set_axis_off()
        panel.text(
            0.5,
            0.5,
            f"no {column.kind} symmetry",
            transform=panel.transAxes,
            ha="center",
            fontsize=8,
            color="#667",
        )
        return
    run, name = found
    there = run.channels(name)
    draw_charges(panel, run, there[spread(len(there), most)])
    above_panel(panel, name.removeprefix(f"{column.kind} "), _note(run, name))
    panel.tick_params(labelsize=7.5)


def _note(run: Followed, name: str) -> str:
    """What is to be said of a symmetry's charges: how far the law misses them, or why that is not known."""
    there, error = run.channels(name), run.errors.get(name, np.nan)
    finite = np.isfinite(run.recorded[:, there]).all(axis=1)
    if not finite.all():
        return f"not finite from t = {run.times[int((~finite).argmax())]:.3g} on"
    if len(run.times) < 2:
        return "recorded once"
    if np.isnan(run.predicted[:, there]).all():
        return "no law describes it"
    if not run.moves(name):
        return "does not move"
    return "" if np.isnan(error) else f"error {exponent(error, figures=1)}"


def draw_charges(panel: Axes, run: Followed, shown: NDArray[np.int_]) -> None:
    """Charges over flow time, a colour each, and their law in dashes."""
    colours = colormaps["viridis"](np.linspace(0.05, 0.85, len(shown)))
    for shade, channel in zip(colours, shown, strict=True):
        draw_line(panel, run.times, run.recorded[:, channel], _POINTS, color=shade, lw=2.4, alpha=0.7)
        draw_line(panel, run.times, run.predicted[:, channel], _POINTS, **LAW_STYLE)
    finite = run.recorded[:, shown][np.isfinite(run.recorded[:, shown])]
    if finite.size and not run.motion[shown].any():  # else rounding would fill the panel
        low, high = finite.min(), finite.max()
        margin = max(0.1 * (high - low), 0.05 * max(abs(low), abs(high))) or 1.0
        panel.set_ylim(low - margin, high + margin)


def spread(count: int, most: int) -> NDArray[np.int_]:
    """At most so many of `count` places, evenly."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


def unit_of(kind: SymmetryKind) -> str:
    """Of charges."""
    return "θ" if kind.form.degree == 1 else "θ²"


def charge_label(kind: SymmetryKind) -> str:
    """Of an axis of charges."""
    return f"Q = {kind.formula}  ({unit_of(kind)})" if kind.formula else "charge Q"


def above_panel(panel: Axes, left: str, right: str = "") -> None:
    """Small notes above a panel, where no line is; the left one is cut where there is no room for both."""
    left = cut(left, max(room(panel, 7.5) - len(right) - 2, 6))
    for place, side, note in ((0, "left", left), (1, "right", right)):
        panel.text(place, 1.02, plain(note), transform=panel.transAxes, fontsize=7.5, va="bottom", ha=side)


def law_legend(label: str = "its law's prediction") -> tuple[list[Line2D], list[str]]:
    """What the lines of `draw_charges` are."""
    lines = [Line2D([], [], color=colormaps["viridis"](0.4), lw=2.4, alpha=0.7), Line2D([], [], **LAW_STYLE)]
    return lines, ["recorded, a colour each channel", label]


def _legend(grid: Grid, *, own: bool) -> None:
    lines, labels = law_legend()
    if own:
        grid[0, 0].figure.legend(lines, labels, loc="outside upper right", ncols=2, fontsize=8.5)
    else:
        grid[0, -1].legend(lines, labels, fontsize=7, frameon=True, framealpha=0.85, edgecolor="none")


def _rows(runs: Runs, law: str | None) -> list[_Row]:
    rows = list(_given(runs, law))
    if not rows:
        raise ArgumentError("charge_grid has no runs to draw: give a tree, a run, or several of them")
    if len(rows) > _ROWS:
        raise ArgumentError(
            f"charge_grid draws a row for each run, at most {_ROWS}, and {len(rows)} were given: select some, as in "
            "study.sel(momentum=0.9)"
        )
    if len(rows) == 1 or any(row.label for row in rows):
        return rows
    varies = _what_varies([row.runs[0] for row in rows])
    return [
        _Row(label or f"run {i + 1}", row.runs)
        for i, (row, label) in enumerate(zip(rows, varies, strict=True))
    ]


def _given(runs: Any, law: str | None) -> Iterator[_Row]:
    if isinstance(runs, xr.DataTree | xr.Dataset):
        for one in followed(runs, law, "runs"):
            yield _Row("", [one])
    elif isinstance(runs, Mapping):
        for label, given in runs.items():
            yield _Row(str(label), _of_row(given, law, f"runs[{label!r}]"))
    elif isinstance(runs, Sequence) and not isinstance(runs, str):
        for i, given in enumerate(runs):
            yield _Row("", _of_row(given, law, f"runs[{i}]"))
    else:
        raise ArgumentError(
            f"runs must be a study's tree, a run, or several in a list or a dict; {said(runs)} was given"
        )


def _of_row(given: Any, law: str | None, name: str) -> list[Followed]:
    """One run, or several, each of one row."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        return [one for i, run in enumerate(given) for one in _of_row(run, law, f"{name}[{i}]")]
    found = followed(given, law, name)
    if len(found) > 1:
        raise ArgumentError(f"{name} is a study of {len(found)} members: give it alone, or one member of it")
    return found


def _what_varies(runs: Sequence[Followed]) -> list[str]:
    """Of each run, that in which it differs from others: "momentum = 0.9, weight decay = 0.01"."""
    keys = dict.fromkeys(key for run in runs for key in run.about)
    differ = [
        key
        for key in keys
        if any(_text(one.about.get(key)) != _text(other.about.get(key)) for one, other in pairwise(runs))
    ]
    return [
        ", ".join(f"{key.replace('_', ' ')} = {_text(run.about[key])}" for key in differ if key in run.about)
        for run in runs
    ]


def _text(value: Any) -> str:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return f"{value:g}" if number else str(value)


def _columns(rows: Sequence[_Row], symmetries: Sequence[str | Symmetry] | None) -> list[_Column]:
    runs = [run for row in rows for run in row.runs]
    kinds = {name: kind for run in runs for name, kind in run.symmetries.items()}
    if symmetries is not None:
        names = _names(symmetries)
        unknown = [name for name in names if name not in kinds]
        if unknown or not names:
            which = f"has a symmetry {unknown[0]!r}" if unknown else "has none of no symmetries"
            raise ArgumentError(f"no run {which}; there are {', '.join(map(repr, kinds))}")
        return [_Column(kinds[name], [name]) for name in names]
    columns: list[_Column] = []
    for kind in [*(known for known in KINDS if known in kinds.values()), *kinds.values()]:
        if kind in (column.kind for column in columns):
            continue
        names = sorted(
            (name for name in kinds if kinds[name] == kind), key=lambda name: merit(name, runs), reverse=True
        )
        columns.append(_Column(kind, names))
    return columns


def _names(symmetries: Any) -> list[str]:
    """Of symmetries that are given, or named.

    Raises:
        ArgumentError: of something else.
    """
    given = [symmetries] if isinstance(symmetries, str | Symmetry) else symmetries
    if not isinstance(given, Iterable) or not all(isinstance(one, str | Symmetry) for one in given):
        raise ArgumentError(f"symmetries must be symmetries or names of them; {said(symmetries)} was given")
    return [one.name if isinstance(one, Symmetry) else one for one in given]


def merit(name: str, runs: Sequence[Followed]) -> tuple[float, ...]:
    """How good a panel a symmetry makes: in many runs, with many charges that move, and far for their size."""
    having = [run for run in runs if name in run.symmetries]
    moving = [run.motion[run.channels(name)] for run in having]
    sizes = [np.abs(run.recorded[:, run.channels(name)]).max(axis=0) for run in having]
    far = [
        float(np.median(moved[moved > 0] / size[moved > 0]))
        for moved, size in zip(moving, sizes, strict=True)
        if (moved > 0).any()
    ]
    return len(having), min(max(int((moved > 0).sum()) for moved in moving), FEW), max(far, default=0.0)


def _has_a_few_members(tree: xr.DataTree) -> bool:
    """Is it a study of few members whose charges were recorded and predicted?"""
    if not study_axes(tree) or not {"discrete", "laws", "comparison"} <= set(tree.children):
        return False
    whole = int(tree.to_dataset(inherit=False)["whole"].values.sum())
    run = tree["discrete"].dataset
    if "charge" not in run or run["charge"].size > _LARGEST or not 1 < whole <= _ROWS:
        return False
    try:
        return bool(followed(tree))
    except NmOdeError:
        return False


CHARGE_GRID = Plot(
    "Charges of one symmetry of each kind, and what their law of motion predicts from the recorded driver (as Kunin et "
    "al. 2021 draw them): a row for each member that has both. Above each panel: the law's largest error over the "
    "run, relative to the motion.",
    lambda tree: figure_of(charge_grid(tree)),
    _has_a_few_members,
    "study",
)
