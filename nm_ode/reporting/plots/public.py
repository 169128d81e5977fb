"""The plots of the report for a user: of a tree or a run, in axes of the user's own or new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.reporting.plots import charges as of_charges
from nm_ode.reporting.plots import edge as at_edge
from nm_ode.reporting.plots import flows, layers, observed, orders, recorded, sharpness, spectra
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.given import Given, Grid, Panels, alone
from nm_ode.reporting.study.plots import losses, multiples, phase
from nm_ode.reporting.study.plots import orders as study_orders
from nm_ode.results import ResultError

One: TypeAlias = Callable[[xr.DataTree, Axes | None], Axes]


def loss(data: Given, *, ax: Axes | None = None) -> Axes:
    """Loss over all samples against flow time: the run's saved steps, and each flow."""
    return _one(
        data, ax, flows.LOSS, flows.loss_plot, "fewer than two steps of the run were saved: save_every"
    )


def error(data: Given, *, ax: Axes | None = None) -> Axes:
    """Distance between each flow and the run, with the solver's own error below it."""
    return _one(data, ax, flows.ERROR, flows.error_plot, _NO_FLOW)


def layer_errors(data: Given, *, ax: Axes | None = None) -> Axes:
    """How far each layer of a flow is from the run's, relative to its motion."""
    return _one(data, ax, layers.LAYERS, layers.layer_plot, _NO_FLOW)


def orders_in_lr(data: Given, *, ax: Axes | None = None) -> Axes:
    """Each flow's error over a ladder of learning rates, and the slopes of theory."""
    why = "no orders over a ladder of learning rates are there"
    return _one(data, ax, orders.ORDERS, orders.order_plot, why)


def stability(data: Given, *, ax: Axes | None = None) -> Axes:
    """lr · λ_max along the run, with its limits."""
    why = "the run has no sharpness: observe=[nm_ode.Curvature(points)]"
    return _one(data, ax, sharpness.SHARPNESS, sharpness.sharpness_plot, why)


def critical_eigenvalues(data: Given, *, ax: Axes | None = None) -> Axes:
    """lr · λ_i of the directions that a central flow follows, against the edge of stability."""
    return _one(data, ax, at_edge.CRITICAL, at_edge.critical_plot, _NO_CENTRAL)


def oscillation_variance(data: Given, *, ax: Axes | None = None) -> Axes:
    """tr Σ as a central flow predicts it, and the run's variance about its own time average."""
    return _one(data, ax, at_edge.VARIANCE, at_edge.variance_plot, _NO_CENTRAL)


def averaged_loss(data: Given, *, ax: Axes | None = None) -> Axes:
    """The run's loss, its time average, and what a central flow predicts of that."""
    return _one(data, ax, at_edge.AVERAGE_LOSS, at_edge.average_loss_plot, _NO_CENTRAL)


def errors_to_average(data: Given, *, ax: Axes | None = None) -> Axes:
    """How far each flow, and the run itself, is from the run's own time average."""
    return _one(data, ax, at_edge.DISTANCE, at_edge.distance_plot, _NO_CENTRAL)


def numbers(data: Given, *, axes: Panels = None) -> Grid:
    """A panel for each number that was recorded along the run's steps; bands: one standard error."""
    tree = alone(data)
    require(tree, recorded.NUMBERS, "no number was recorded along its steps")
    return recorded.numbers_plot(tree, axes)


def layer_numbers(data: Given) -> Grid:
    """A panel for each series that was recorded of every layer."""
    return _several(alone(data), recorded.LAYERS, "nothing was recorded of each layer")


def batch_loss(data: Given) -> Grid:
    """Loss of each step's batch, and the learning rate below it."""
    return _several(alone(data), recorded.LOSS, "the run has no steps")


def observed_numbers(data: Given, *, axes: Panels = None) -> Grid:
    """A panel for each number that was observed, over flow time: the run, and the flows that have it."""
    tree = alone(data)
    require(tree, observed.OBSERVED, "nothing beyond losses and norms was observed")
    return observed.observed_plot(tree, axes)


def eigenvalues(data: Given) -> Grid:
    """The largest eigenvalues at each step at which they were measured."""
    return _several(alone(data), spectra.EIGENVALUES, _NO_HESSIAN)


def spectral_densities(data: Given) -> Grid:
    """How the eigenvalues are spread, at the first, a middle and the last measurement."""
    return _several(alone(data), spectra.DENSITIES, _NO_HESSIAN)


def charges_by_kind(data: Given, *, axes: Panels = None) -> Grid:
    """One panel a kind of symmetry: each channel's charge over flow time, and its law."""
    tree = alone(data)
    require(tree, of_charges.BY_KIND, _NO_CHARGES)
    return of_charges.charges_by_kind(tree, axes)


def charges_by_symmetry(data: Given, *, axes: Panels = None) -> Grid:
    """A small panel for every symmetry that moves: how far its charges have gone, and its law."""
    tree = alone(data)
    require(tree, of_charges.BY_SYMMETRY, _NO_CHARGES)
    return of_charges.charges_by_symmetry(tree, axes)


def member_losses(study: xr.DataTree, *, by: str | None = None, ax: Axes | None = None) -> Axes:
    """A line for each member of a study, in the colour of its place along the axis `by`."""
    require(study, losses.LOSSES, "no member has losses over all samples")
    return losses.loss_curves(study, ax, by)


def phase_diagram(
    study: xr.DataTree,
    *,
    quantity: str | Sequence[str] | None = None,
    x: str | None = None,
    y: str | None = None,
    axes: Axes | Panels = None,
) -> Grid:
    """A panel for each number of a study's members over two of its axes.

    A cell without a number has a mark that says why. Of further axes (seeds, say) it is the median.

    Args:
        study: of `nm_ode.open_study`.
        quantity: "final_loss", "relative_error.<flow>", "local_order.<flow>", …, or several of them; all if None.
        x, y: names of the axes; the case's first two if None, seeds last.
        axes: as many as there are quantities, to draw in.

    Raises:
        ArgumentError: no such quantity or axis, or too few axes.
        ResultError: the study has not two axes.
    """
    require(study, phase.PHASE, "the study has not two axes with more than one place, or no numbers")
    return phase.phase_panels(study, quantity, x, y, axes)


def over_axes(study: xr.DataTree, *, quantity: str | None = None) -> Grid:
    """A row for each number of a study's members, a column for each axis."""
    require(study, multiples.OVER_AXES, "no member of the study has numbers")
    return axes_of(multiples.over_axes(study, quantity))


def errors_over_lr(study: xr.DataTree) -> Grid:
    """Errors of each flow of a study's members over the learning rate."""
    return _several(study, study_orders.ERRORS, "the study's axes have no ladder of learning rates")


_NO_FLOW = "no flow was compared with the run: solve(flow, t=run), and nm_ode.plots.as_tree(run, solution)"
_NO_CENTRAL = (
    "no central flow was compared with the run's own time average: solve(nm_ode.CentralFlow(problem, optimizer), run) "
    "beside a run with save_every = 1, and nm_ode.plots.as_tree(run, solution)"
)
_NO_HESSIAN = "the run has no spectra: observe=[nm_ode.Hessian(…)]"
_NO_CHARGES = (
    "it has no charges that move beside their symmetries and a law: take charge_grid for a run alone"
)


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


def _one(data: Given, ax: Axes | None, plot: Plot, draw: One, why: str) -> Axes:
    tree = alone(data)
    require(tree, plot, why)
    return draw(tree, ax)


def _several(tree: xr.DataTree, plot: Plot, why: str) -> Grid:
    require(tree, plot, why)
    return axes_of(plot.draw(tree))
