"""A user's plots of charges and their laws."""

from __future__ import annotations

from nm_ode.reporting.plots import charges
from nm_ode.reporting.plots.asked import require
from nm_ode.reporting.plots.given import Given, Grid, Panels, alone, with_symmetries

_NO_CHARGES = "it has no charges that move: observe=[nm_ode.Charges(symmetries)]"


def charges_by_kind(data: Given, *, axes: Panels = None) -> Grid:
    """One panel a kind of symmetry: each channel's charge over flow time, and its law.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        axes: as many as panels, to draw in; of a figure of their own if None.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is neither a tree nor a run, or another number of `axes`.
        LawError: no law describes them.
        ResultError: no charges that move.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1, momentum=0.9), steps=20, observe=[charges])
        >>> axes = nm_ode.plots.charges_by_kind(run)
        >>> [ax.get_title(loc="left").strip() for ax in axes]
        ['rescale']
    """
    tree = with_symmetries(alone(data))
    require(tree, charges.BY_KIND, _NO_CHARGES)
    return charges.charges_by_kind(tree, axes)


def charges_by_symmetry(data: Given, *, axes: Panels = None) -> Grid:
    """A small panel for every symmetry that moves: how far its charges have gone, and its law.

    Args:
        data: a run, or a study's tree; `as_tree` makes one of a run and solutions.
        axes: as many as panels, to draw in; of a figure of their own if None.

    Returns:
        Axes, shape (panels,).

    Raises:
        ArgumentError: what is neither a tree nor a run, or another number of `axes`.
        LawError: no law describes them.
        ResultError: no charges that move.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1, momentum=0.9), steps=20, observe=[charges])
        >>> axes = nm_ode.plots.charges_by_symmetry(run)
        >>> len(axes)
        1
    """
    tree = with_symmetries(alone(data))
    require(tree, charges.BY_SYMMETRY, _NO_CHARGES)
    return charges.charges_by_symmetry(tree, axes)
