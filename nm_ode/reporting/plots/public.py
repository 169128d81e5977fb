"""The plots of the report for a user: of a tree or a run, in axes of the user's own or new ones."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from nm_ode.reporting.plots import flows, layers, observed, orders, recorded, sharpness
from nm_ode.reporting.plots.asked import one, require, several
from nm_ode.reporting.plots.given import Given, Grid, Panels, alone

_NO_FLOW = "no flow was compared with the run: solve(flow, t=run), and nm_ode.plots.as_tree(run, solution)"


def loss(data: Given, *, ax: Axes | None = None) -> Axes:
    """Loss over all samples against flow time: the run's saved steps, and each flow.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: fewer than two steps of the run were saved.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10)
        >>> tree = nm_ode.plots.as_tree(run, nm_ode.solve(nm_ode.GradientFlow(problem), run))
        >>> ax = nm_ode.plots.loss(tree)
        >>> [line.get_label() for line in ax.lines], ax.get_xlabel()
        (['discrete run', 'gradient flow'], 'flow time t = lr · step  (lr = 0.1)')
    """
    return one(
        data,
        ax,
        flows.LOSS,
        flows.loss_plot,
        "fewer than two steps of the run were saved (save_every); batch_loss draws each step's",
    )


def error(data: Given, *, ax: Axes | None = None) -> Axes:
    """Distance between each flow and the run, with the solver's own error below it.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: no flow was compared with the run.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10)
        >>> tree = nm_ode.plots.as_tree(run, nm_ode.solve(nm_ode.GradientFlow(problem), run))
        >>> ax = nm_ode.plots.error(tree)
        >>> len(ax.lines), ax.get_yscale()
        (3, 'log')
    """
    return one(data, ax, flows.ERROR, flows.error_plot, _NO_FLOW)


def layer_errors(data: Given, *, ax: Axes | None = None) -> Axes:
    """How far each layer of a flow is from the run's, relative to its motion.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: no flow was compared with the run.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10)
        >>> tree = nm_ode.plots.as_tree(run, nm_ode.solve(nm_ode.GradientFlow(problem), run))
        >>> ax = nm_ode.plots.layer_errors(tree)
        >>> [line.get_label() for line in ax.lines]
        ['gradient flow']
    """
    return one(data, ax, layers.LAYERS, layers.layer_plot, _NO_FLOW)


def orders_in_lr(data: Given, *, ax: Axes | None = None) -> Axes:
    """Each flow's error over several learning rates, and the slopes of theory.

    Args:
        data: the tree of a study over learning rates, with its reduction `order`.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: no orders over several learning rates are there.

    Example:
        After `nm-ode run orders_tanh`:

        >>> import nm_ode
        >>> study = nm_ode.open_study("results/orders_tanh")
        >>> ax = nm_ode.plots.orders_in_lr(study)
        >>> ax.get_xlabel(), ax.get_xscale()
        ('learning rate  lr', 'log')
    """
    tree = data if isinstance(data, xr.DataTree) and "convergence" in data.children else alone(data)
    require(tree, orders.ORDERS, "no orders over several learning rates are there")
    return orders.order_plot(tree, ax)


def stability(data: Given, *, ax: Axes | None = None) -> Axes:
    """lr · λ_max along the run, with its limits.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: the run has no sharpness, which `Curvature` observes.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=9, observe=[nm_ode.Curvature(points=3)])
        >>> ax = nm_ode.plots.stability(run)
        >>> ax.get_xlabel()
        'flow time t = lr · step  (lr = 0.1)'
    """
    why = "the run has no sharpness: observe=[nm_ode.Curvature(points)]"
    return one(data, ax, sharpness.SHARPNESS, sharpness.sharpness_plot, why)


def batch_loss(data: Given) -> Grid:
    """Loss of each step's batch, and the learning rate below it.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is neither a tree nor a run.
        ResultError: the run has no steps.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10, batch_size=64)
        >>> [ax.get_ylabel() for ax in nm_ode.plots.batch_loss(run)]
        ['loss', 'learning rate']
    """
    return several(alone(data), recorded.LOSS, "the run has no steps")


def numbers(data: Given, *, axes: Panels = None) -> Grid:
    """A panel for each number that was recorded along the run's steps; bands: one standard error.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        axes: as many as panels, to draw in; of a figure of their own if None.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is neither a tree nor a run, or another number of `axes`.
        ResultError: no number was recorded along its steps.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10)
        >>> [ax.get_title(loc="left") for ax in nm_ode.plots.numbers(run)]
        ['gradient norm ‖∇L‖', 'norm of the update ‖θ_{k+1} − θ_k‖']
    """
    tree = alone(data)
    require(tree, recorded.NUMBERS, "no number was recorded along its steps")
    return recorded.numbers_plot(tree, axes)


def layer_numbers(data: Given) -> Grid:
    """A panel for each series that was recorded of every layer.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is neither a tree nor a run.
        ResultError: nothing was recorded of each layer.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10)
        >>> [ax.get_title(loc="left") for ax in nm_ode.plots.layer_numbers(run)]
        ['gradient norm of each layer', 'norm of the update of each layer']
    """
    return several(alone(data), recorded.LAYERS, "nothing was recorded of each layer")


def observed_numbers(data: Given, *, axes: Panels = None) -> Grid:
    """A panel for each number that was observed, over flow time: the run, and the flows that have it.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        axes: as many as panels, to draw in; of a figure of their own if None.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is neither a tree nor a run, or another number of `axes`.
        ResultError: nothing beyond losses and norms was observed.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=9, observe=[nm_ode.Statistics()])
        >>> [ax.get_title(loc="left") for ax in nm_ode.plots.observed_numbers(run)][:2]
        ['norm of the parameters ‖θ‖', '⟨θ, ∇L⟩']
    """
    tree = alone(data)
    require(tree, observed.OBSERVED, "nothing beyond losses and norms was observed")
    return observed.observed_plot(tree, axes)
