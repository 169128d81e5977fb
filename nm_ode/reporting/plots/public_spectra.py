"""A user's plots of the edge of stability and of the Hessian's spectrum."""

from __future__ import annotations

from matplotlib.axes import Axes

from nm_ode.reporting.plots import edge, spectra
from nm_ode.reporting.plots.asked import one, several
from nm_ode.reporting.plots.given import Given, Grid, alone

_NO_CENTRAL = (
    "no central flow was compared with the run's own time average: solve(nm_ode.CentralFlow(problem, optimizer), run) "
    "beside a run with save_every = 1, and nm_ode.plots.as_tree(run, solution)"
)
_NO_HESSIAN = "the run has no spectra: observe=[nm_ode.Hessian(…)]"


def critical_eigenvalues(data: Given, *, ax: Axes | None = None) -> Axes:
    """lr · λ_i of the directions that a central flow follows, against the edge of stability.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: no central flow was compared with the run's own time average.

    Example:
        >>> import torch
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> one, theta0 = torch.ones(4, 1), torch.tensor([1.6, 0.6], dtype=torch.float64)
        >>> problem = nm_ode.Problem(mlp([1, 1, 1], "identity", bias=False), mse_loss, (one, one))
        >>> sgd = nm_ode.SGD(lr=0.4)
        >>> run = nm_ode.train(problem, sgd, steps=12, theta0=theta0)
        >>> solution = nm_ode.solve(nm_ode.CentralFlow(problem, sgd), run, rtol=1e-4, check=False)
        >>> tree = nm_ode.plots.as_tree(run, solution)
        >>> nm_ode.plots.critical_eigenvalues(tree).get_xlabel()
        'flow time t = lr · step  (lr = 0.4)'
    """
    return one(data, ax, edge.CRITICAL, edge.critical_plot, _NO_CENTRAL)


def oscillation_variance(data: Given, *, ax: Axes | None = None) -> Axes:
    """tr Σ as a central flow predicts it, and the run's variance about its own time average.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: no central flow was compared with the run's own time average.

    Example:
        >>> import torch
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> one, theta0 = torch.ones(4, 1), torch.tensor([1.6, 0.6], dtype=torch.float64)
        >>> problem = nm_ode.Problem(mlp([1, 1, 1], "identity", bias=False), mse_loss, (one, one))
        >>> sgd = nm_ode.SGD(lr=0.4)
        >>> run = nm_ode.train(problem, sgd, steps=12, theta0=theta0)
        >>> solution = nm_ode.solve(nm_ode.CentralFlow(problem, sgd), run, rtol=1e-4, check=False)
        >>> tree = nm_ode.plots.as_tree(run, solution)
        >>> nm_ode.plots.oscillation_variance(tree).get_xlabel()
        'flow time t = lr · step  (lr = 0.4)'
    """
    return one(data, ax, edge.VARIANCE, edge.variance_plot, _NO_CENTRAL)


def averaged_loss(data: Given, *, ax: Axes | None = None) -> Axes:
    """The run's loss, its time average, and what a central flow predicts of that.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: no central flow was compared with the run's own time average.

    Example:
        >>> import torch
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> one, theta0 = torch.ones(4, 1), torch.tensor([1.6, 0.6], dtype=torch.float64)
        >>> problem = nm_ode.Problem(mlp([1, 1, 1], "identity", bias=False), mse_loss, (one, one))
        >>> sgd = nm_ode.SGD(lr=0.4)
        >>> run = nm_ode.train(problem, sgd, steps=12, theta0=theta0)
        >>> solution = nm_ode.solve(nm_ode.CentralFlow(problem, sgd), run, rtol=1e-4, check=False)
        >>> tree = nm_ode.plots.as_tree(run, solution)
        >>> nm_ode.plots.averaged_loss(tree).get_xlabel()
        'flow time t = lr · step  (lr = 0.4)'
    """
    return one(data, ax, edge.AVERAGE_LOSS, edge.average_loss_plot, _NO_CENTRAL)


def errors_to_average(data: Given, *, ax: Axes | None = None) -> Axes:
    """How far each flow, and the run itself, is from the run's own time average.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: what is neither a tree nor a run, or `ax` that is none.
        ResultError: no central flow was compared with the run's own time average.

    Example:
        >>> import torch
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> one, theta0 = torch.ones(4, 1), torch.tensor([1.6, 0.6], dtype=torch.float64)
        >>> problem = nm_ode.Problem(mlp([1, 1, 1], "identity", bias=False), mse_loss, (one, one))
        >>> sgd = nm_ode.SGD(lr=0.4)
        >>> run = nm_ode.train(problem, sgd, steps=12, theta0=theta0)
        >>> solution = nm_ode.solve(nm_ode.CentralFlow(problem, sgd), run, rtol=1e-4, check=False)
        >>> tree = nm_ode.plots.as_tree(run, solution)
        >>> nm_ode.plots.errors_to_average(tree).get_xlabel()
        'flow time t = lr · step  (lr = 0.4)'
    """
    return one(data, ax, edge.DISTANCE, edge.distance_plot, _NO_CENTRAL)


def eigenvalues(data: Given) -> Grid:
    """The largest eigenvalues at each step at which they were measured.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is neither a tree nor a run.
        ResultError: the run has no spectra, which `Hessian` observes.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=9, observe=[nm_ode.Hessian(every=4, top=2)])
        >>> [ax.get_ylabel() for ax in nm_ode.plots.eigenvalues(run)]
        ['eigenvalue λ']
    """
    return several(alone(data), spectra.EIGENVALUES, _NO_HESSIAN)


def spectral_densities(data: Given) -> Grid:
    """How the eigenvalues are spread, at the first, a middle and the last measurement.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is neither a tree nor a run.
        ResultError: the run has no spectra, which `Hessian(density=…)` observes.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=9, observe=[nm_ode.Hessian(every=4, density=2)])
        >>> [ax.get_xlabel() for ax in nm_ode.plots.spectral_densities(run)]
        ['eigenvalue λ']
    """
    return several(alone(data), spectra.DENSITIES, _NO_HESSIAN)
