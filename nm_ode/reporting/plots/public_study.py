"""A user's plots of a study of many members."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.axes import Axes

from nm_ode.reporting.plots.asked import axes_of, require, several
from nm_ode.reporting.plots.given import Grid, Panels
from nm_ode.reporting.study.plots import losses, multiples, orders, phase


def member_losses(study: xr.DataTree, *, by: str | None = None, ax: Axes | None = None) -> Axes:
    """A line for each member of a study, in the colour of its place along the axis `by`.

    Args:
        study: of many members, from `open_study`.
        by: the axis that gives the colours; the first with more than one place if None, seeds last.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is no study's tree, or has no such axis or quantity.
        ResultError: no member has losses over all samples.

    Example:
        After `nm-ode run sweep_lr_momentum`:

        >>> import nm_ode
        >>> study = nm_ode.open_study("results/sweep_lr_momentum")
        >>> ax = nm_ode.plots.member_losses(study, by="momentum")
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('flow time t', 'loss over all samples')
    """
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
        study: of many members, from `open_study`.
        quantity: "final_loss", "relative_error.<flow>", "local_order.<flow>", …, or several of them; all if None.
        x, y: names of the axes; the case's first two if None, seeds last.
        axes: as many as there are quantities, to draw in; of a figure of their own if None.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is no study's tree, no such quantity or axis, or too few axes.
        ResultError: the study has not two axes with more than one place, or no numbers.

    Example:
        After `nm-ode run sweep_lr_momentum`:

        >>> import nm_ode
        >>> study = nm_ode.open_study("results/sweep_lr_momentum")
        >>> (ax,) = nm_ode.plots.phase_diagram(study, quantity="final_loss", x="lr", y="momentum")
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('lr', 'momentum')
    """
    require(study, phase.PHASE, "the study has not two axes with more than one place, or no numbers")
    return phase.phase_panels(study, quantity, x, y, axes)


def over_axes(study: xr.DataTree, *, quantity: str | None = None) -> Grid:
    """A row for each number of a study's members, a column for each axis.

    Args:
        study: of many members, from `open_study`.
        quantity: "final_loss", "relative_error.gradient", …; all that there are if None.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is no study's tree, or has no such axis or quantity.
        ResultError: no member of the study has numbers.

    Example:
        After `nm-ode run sweep_lr_momentum`:

        >>> import nm_ode
        >>> study = nm_ode.open_study("results/sweep_lr_momentum")
        >>> axes = nm_ode.plots.over_axes(study, quantity="final_loss")
        >>> [ax.get_xlabel() for ax in axes]
        ['lr', 'momentum']
    """
    require(study, multiples.OVER_AXES, "no member of the study has numbers")
    return axes_of(multiples.over_axes(study, quantity))


def errors_over_lr(study: xr.DataTree) -> Grid:
    """Errors of each flow of a study's members over the learning rate.

    Args:
        study: of many members, from `open_study`.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is no study's tree.
        ResultError: the study's axes have no learning rates.

    Example:
        After `nm-ode run sweep_lr_momentum`:

        >>> import nm_ode
        >>> study = nm_ode.open_study("results/sweep_lr_momentum")
        >>> axes = nm_ode.plots.errors_over_lr(study)
        >>> [ax.get_xscale() for ax in axes]
        ['log', 'log']
    """
    return several(study, orders.ERRORS, "the study's axes have no learning rates")
