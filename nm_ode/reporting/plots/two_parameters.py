"""A loss of two parameters: its contours, the run, its flows, and the level sets of a symmetry's charge."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from nm_ode.arguments import as_count, said
from nm_ode.errors import ArgumentError
from nm_ode.flows import Flow
from nm_ode.loss import Problem
from nm_ode.parameters import Layout
from nm_ode.reporting.style import COLOURS, DISCRETE, colour, dash, panel, plain, styled
from nm_ode.results import ResultError, run_info, solve_info
from nm_ode.symmetries import KINDS, ChargeMeter, Symmetry

Array = NDArray[np.float64]

_MARGIN = 0.2  # of the paths' extent, around them
_CONTOURS, _LEVELS = 12, 6
_LEVEL = COLOURS[3]


def two_parameters(
    problem: Problem,
    run: xr.Dataset,
    *solutions: xr.Dataset,
    symmetry: Symmetry | None = None,
    charge: int = 0,
    points: int = 71,
    ax: Axes | None = None,
) -> Axes:
    """Paths in the plane of a problem's two parameters, over the contours of its loss (as Kunin et al. 2021).

    Gradient flow stays on the level set of a charge on which it starts; descent, and the modified flow that follows it,
    leave it. Contours lie at quantiles of the loss over what is shown.

    Args:
        problem: of two parameters.
        run: of `train` on it, with `theta` at its saved steps.
        solutions: of flows on it, with `theta`.
        symmetry: of the model: level sets of its charge are drawn, thick through the run's start.
        charge: which of its charges.
        points: of the grid along each axis on which the loss is evaluated.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: another number of parameters, or what is no problem, symmetry or charge of it.
        ResultError: a run or solution without theta, or of other parameters.
        SymmetryError: a symmetry of another model.

    Example:
        >>> import torch
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> one, theta0 = torch.ones(4, 1), torch.tensor([1.6, 0.6], dtype=torch.float64)
        >>> problem = nm_ode.Problem(mlp([1, 1, 1], "identity", bias=False), mse_loss, (one, one))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=10, theta0=theta0)
        >>> solution = nm_ode.solve(nm_ode.GradientFlow(problem), run)
        >>> ax = nm_ode.plots.two_parameters(problem, run, solution)
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('linear1.weight', 'linear2.weight')
    """
    layout = _require_two(problem)
    points = as_count(points, "points", least=3)
    quadratic = None if symmetry is None else _charge_of(layout, symmetry, charge)
    run_path = _path(run, layout, "run", "saved_step")
    title = run_info(run).optimizer_text
    paths = [
        (solve_info(one).title, _path(one, layout, f"solutions[{i}]", "time"))
        for i, one in enumerate(solutions)
    ]
    box = _box([run_path, *(path for _, path in paths)])
    with styled():
        if ax is None:
            ax = Figure(figsize=(6.2, 6.6), layout="constrained").subplots()
            ax.set_title("Paths in the plane of the parameters")
        ax = panel("", given=ax)
        x, y = (np.linspace(low, high, points) for low, high in box)
        _contours(ax, problem, x, y)
        handles = [_line(color="#99a", lw=0.9, label="contours of the loss")]
        if quadratic is not None and symmetry is not None:
            _levels(ax, quadratic, x, y, run_path[0])
            name = f"{KINDS[symmetry.kind].formula} = const."
            handles.append(_line(color=_LEVEL, lw=1.6, ls=(0, (5, 2)), label=f"charge {name}"))
        for i, (known, path) in enumerate(paths):
            (line,) = ax.plot(*path.T, color=colour(i), ls=dash(i), lw=2.2, label=plain(known), zorder=3)
            handles.append(line)
        (line,) = ax.plot(
            *run_path.T,
            color=DISCRETE,
            lw=0.7,
            marker="o",
            ms=3.4,
            label=plain(f"descent: {title}"),
            zorder=4,
        )
        handles.append(line)
        (start,) = ax.plot(
            *run_path[0],
            color=DISCRETE,
            marker="s",
            ms=8,
            ls="",
            mfc="white",
            mew=1.6,
            label="start",
            zorder=5,
        )
        handles.append(start)
        ax.set_xlim(*box[0])
        ax.set_ylim(*box[1])
        ax.set_aspect("equal")
        ax.grid(visible=False)
        first, second = _names(layout)
        ax.set_xlabel(plain(first))
        ax.set_ylabel(plain(second))
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize=8)
        return ax


def _require_two(problem: Any) -> Layout:
    if not isinstance(problem, Problem):
        given = "a flow" if isinstance(problem, Flow) else said(problem)
        raise ArgumentError(f"problem must be a nm_ode.Problem; {given} was given")
    if problem.layout.size != 2:
        raise ArgumentError(
            f"two_parameters draws the plane of two parameters, and this problem has {problem.layout.size}: take a "
            "model of two, or freeze all others (requires_grad = False)"
        )
    return problem.layout


def _path(given: Any, layout: Layout, name: str, dim: str) -> Array:
    """Where a run or a flow was, shape (samples, 2)."""
    if not isinstance(given, xr.Dataset):
        raise ArgumentError(
            f"{name} must be a dataset that nm_ode.train or nm_ode.solve gave; {said(given)} was given"
        )
    info = run_info(given) if dim == "saved_step" else solve_info(given)
    if [(slot.name, slot.shape) for slot in info.layout.slots] != [(s.name, s.shape) for s in layout.slots]:
        raise ResultError(
            f"{name} is of other parameters than the problem's: give what was computed with this one"
        )
    if "theta" not in given:
        raise ResultError(f"{name} has no theta: record it (a Sketch with keep_theta=True, or none at all)")
    path = given["theta"].transpose(dim, "param").values.astype(float)
    found: Array = path[np.isfinite(path).all(axis=1)]
    if not len(found):
        raise ResultError(f"{name} has no theta that is finite")
    return found


def _charge_of(layout: Layout, symmetry: Any, charge: Any) -> tuple[Array, Array]:
    """A charge as q·θ + θᵀMθ: q of shape (2,), M of shape (2, 2), one of them zero."""
    if not isinstance(symmetry, Symmetry):
        raise ArgumentError(
            f"symmetry must be one of those that nm_ode.symmetries_of(problem) gives; {said(symmetry)} was given"
        )
    meter = ChargeMeter(layout, [symmetry])
    number = as_count(charge, "charge", least=0)
    if number >= meter.count:
        raise ArgumentError(
            f"charge must be below {meter.count}, the number of charges of {symmetry.name}; {number} was given"
        )

    def at(*theta: float) -> float:
        return float(meter.charge(torch.tensor(theta, dtype=torch.float64, device="cpu"))[number])

    first, second, both = at(1.0, 0.0), at(0.0, 1.0), at(1.0, 1.0)
    if bool(meter.is_translation[number]):
        return np.array([first, second]), np.zeros((2, 2))
    mixed = (both - first - second) / 2
    return np.zeros(2), np.array([[first, mixed], [mixed, second]])


def _box(paths: list[Array]) -> list[tuple[float, float]]:
    """A square around all of them."""
    every = np.concatenate(paths)
    low, high = every.min(axis=0), every.max(axis=0)
    half = (0.5 + _MARGIN) * float((high - low).max())
    half = half if half > 0 else max(float(np.abs(high).max()), 1.0)
    return [(float(one) - half, float(one) + half) for one in (low + high) / 2]


def _contours(ax: Axes, problem: Problem, x: Array, y: Array) -> None:
    like = problem.theta0
    losses = np.array(
        [
            [float(problem.loss(torch.tensor([a, b], dtype=like.dtype, device=like.device))) for a in x]
            for b in y
        ]
    )
    finite = losses[np.isfinite(losses)]
    levels = np.unique(np.quantile(finite, np.linspace(0.08, 0.97, _CONTOURS))) if finite.size else finite
    if levels.size > 1:
        shown = np.ma.masked_invalid(losses)
        ax.contourf(x, y, shown, levels=levels, cmap="Greys", alpha=0.25, extend="both", zorder=0)
        ax.contour(x, y, shown, levels=levels, colors="#99a", linewidths=0.7, zorder=1)


def _levels(ax: Axes, charge: tuple[Array, Array], x: Array, y: Array, start: Array) -> None:
    plane = np.stack(np.meshgrid(x, y), axis=-1)
    linear, square = charge
    values = plane @ linear + np.einsum("...i,ij,...j", plane, square, plane)
    here = float(start @ linear + start @ square @ start)
    others = np.unique(np.quantile(values, np.linspace(0.08, 0.92, _LEVELS)))
    ax.contour(x, y, values, levels=others, colors=_LEVEL, linewidths=0.8, linestyles="dotted", zorder=2)
    if values.min() < here < values.max():
        ax.contour(
            x, y, values, levels=[here], colors=_LEVEL, linewidths=1.6, linestyles=[(0, (5, 2))], zorder=2
        )


def _line(**style: Any) -> Line2D:
    return Line2D([], [], **style)


def _names(layout: Layout) -> list[str]:
    slots = layout.slots
    if len(slots) == 2:
        return [slot.name for slot in slots]
    return [f"{slots[0].name}[{i}]" for i in range(2)]
