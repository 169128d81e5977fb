"""Residuals of the constraints that symmetries put on gradient and Hessian, beside what rounding makes of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.observers.track import time_of
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.flows import positive
from nm_ode.reporting.plots.given import Given, alone, figure_of, panels
from nm_ode.reporting.style import COLOURS, DASHES, cut, logarithmic, panel, plain, styled, time_label
from nm_ode.results import ResultError
from nm_ode.symmetries import KINDS

Of = Literal["gradient", "curvature"]

FAR = 20.0
"""Times its floor from which on a residual is not rounding."""

_TITLES: dict[Of, str] = {"gradient": "Constraint of the gradient", "curvature": "Constraint of the Hessian"}
_LABELS = {
    "gradient": r"$|\langle g, \xi\rangle| \,/\, (\|g\|\,\|\xi\|)$",
    "curvature": r"$\|H\xi + (\partial\xi)^{\!\top} g\|$, relative",
}
_HEIGHT = 4.4  # inches, of a panel with its legend
_NAMED = 4
_LETTERS = 60  # of a name in the legend, which else leaves no room for the panel


def constraint_residuals(data: Given, *, of: Of = "gradient", ax: Axes | None = None) -> Axes:
    """Residuals of each symmetry's constraint of the gradient, or of the Hessian ("curvature"), over flow time.

    In the colour of its kind; dotted: the largest that rounding makes of a residual of the kind. Symmetries whose
    residual is once above `FAR` times its own floor are named.

    Args:
        data: a study's tree, or a run alone, with what `Constraints` observed.
        of: "gradient" or "curvature".
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: another `of`.
        ResultError: they were not measured, and why.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> constraints = nm_ode.Constraints(nm_ode.symmetries_of(problem), every=2)
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=7, observe=[constraints])
        >>> ax = nm_ode.plots.constraint_residuals(run, of="curvature")
        >>> ax.get_yscale()
        'log'
    """
    if not isinstance(of, str) or of not in _TITLES:
        raise ArgumentError(f"of must be 'gradient' or 'curvature'; {said(of)} was given")
    return constraint_plot(alone(data), of, ax)


def constraint_plot(tree: xr.DataTree, of: Of = "gradient", axes: Axes | None = None) -> Axes:
    """As `constraint_residuals`, of a tree."""
    run = tree["discrete"].dataset
    name = f"{of}_constraint"
    if not has_constraint(run, of):
        why = set(map(str, run["constraint_reason"].values)) if "constraint_reason" in run else set()
        told = "; ".join(sorted(why - {""})) or "observe=[nm_ode.Constraints(symmetries)]"
        raise ResultError(f"the run has no residuals of its {_TITLES[of].lower()}: {told}")
    residual, floor = run[name], run[f"{name}_floor"]
    times = run[time_of(str(residual.dims[0]))]
    with styled():
        axes = panel(_TITLES[of], _HEIGHT, given=axes)
        marker = "o" if residual.sizes[residual.dims[0]] < 40 else ""
        for i, kind in enumerate(kinds_of(run)):
            here = run["constraint_kind"].values == kind
            colour = COLOURS[i % len(COLOURS)]
            highest = floor.isel(constraint_symmetry=here).max("constraint_symmetry")
            axes.plot(times, positive(highest), color=colour, lw=1, ls=DASHES[2])
            for place in np.flatnonzero(here):
                one = positive(residual.isel(constraint_symmetry=place))
                axes.plot(times, one, color=colour, lw=1.1, alpha=0.8, marker=marker, ms=2.5)
        logarithmic(axes, "y")
        axes.set_xlabel(time_label(tree))
        axes.set_ylabel(_LABELS[of])
        # Below the axes: inside, it may lie over the curves.
        axes.legend(handles=_lines(run, of), loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)
        return axes


def constraints_figure(tree: xr.DataTree) -> Figure:
    """A panel for each of the two that was measured."""
    measured = [of for of in _TITLES if has_constraint(tree["discrete"].dataset, of)]
    with styled():
        grid = panels(None, (len(measured), 1), _HEIGHT * len(measured), of="constraint_residuals")
        for axes, of in zip(grid.reshape(-1), measured, strict=True):
            constraint_plot(tree, of, axes)
            axes.set_title(_TITLES[of])
        return figure_of(grid)


def beyond_rounding(run: xr.Dataset, of: Of) -> list[str]:
    """Names of the symmetries whose residual is once above `FAR` times its floor, the farthest first."""
    times = (run[f"{of}_constraint"] / run[f"{of}_constraint_floor"]).values
    most = np.where(np.isfinite(times), times, 0.0).max(axis=0, initial=0.0)
    names = run["constraint_symmetry"].values
    return [str(names[i]) for i in np.argsort(-most) if most[i] > FAR]


def kinds_of(run: xr.Dataset) -> list[str]:
    """Those of the symmetries, in the registry's order, so that each has one colour."""
    there = set(run["constraint_kind"].values.tolist())
    return [*[kind for kind in KINDS if kind in there], *sorted(there - set(KINDS))]


def has_constraint(run: xr.Dataset, of: str) -> bool:
    """Was it measured at least once?"""
    name = f"{of}_constraint"
    return name in run and bool(np.isfinite(run[name].values).any())


def _lines(run: xr.Dataset, of: Of) -> list[Line2D]:
    counts = {kind: int((run["constraint_kind"].values == kind).sum()) for kind in kinds_of(run)}
    found = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], lw=1.6, label=f"{kind} ({count})")
        for i, (kind, count) in enumerate(counts.items())
    ]
    found.append(
        Line2D([], [], color="#445", lw=1, ls=DASHES[2], label="rounding's floor, the largest of a kind")
    )
    far = beyond_rounding(run, of)
    epsilons = dict(
        zip(map(str, run["constraint_symmetry"].values), run["constraint_epsilon"].values, strict=True)
    )
    for name in far[:_NAMED]:
        why = f", which ε = {epsilons[name]:g} breaks" if epsilons[name] else ""
        found.append(Line2D([], [], ls="", label=plain(f"above rounding: {cut(name, _LETTERS)}{why}")))
    if len(far) > _NAMED:
        found.append(Line2D([], [], ls="", label=f"and {len(far) - _NAMED} more"))
    return found


def _applies(tree: xr.DataTree) -> bool:
    return "discrete" in tree.children and any(has_constraint(tree["discrete"].dataset, of) for of in _TITLES)


_CAPTION = (
    "Residuals of the constraints that each symmetry puts on gradient and Hessian, relative; dotted: what rounding "
    "makes of them, seen by moving every parameter by a few roundings. Near its floor a residual is zero for all one "
    "can know."
)
OF_STUDY = Plot(_CAPTION, constraints_figure, _applies, "observed")
OF_RUN = Plot(_CAPTION, constraints_figure, _applies, "run")
