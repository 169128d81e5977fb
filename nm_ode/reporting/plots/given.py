"""What a plot is given: a study's tree, or a run alone; and the axes that it is to draw in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nm_ode.arguments import said
from nm_ode.charges import LawError, predict_charges
from nm_ode.comparison import compare, has_average, predicts_variance
from nm_ode.errors import ArgumentError
from nm_ode.reporting.style import WIDTH
from nm_ode.results import ResultError, SymmetriesInfo, law_info, run_info, solve_info, write
from nm_ode.results.curvature import without_curvature

Given: TypeAlias = xr.DataTree | xr.Dataset
"""A study's tree, or a run."""
Grid: TypeAlias = NDArray[np.object_]
"""Axes that were drawn in."""
Panels: TypeAlias = Sequence[Axes] | Grid | None
"""Axes to draw in; None for new ones."""

_LAWS = ("first_order", "second_order", "exact")
"""In the order in which one is looked for that describes a run."""


def as_tree(run: Given, *solutions: xr.Dataset, name: str = "run") -> xr.DataTree:
    """The tree that a study would have of a run and of what was solved or predicted beside it.

    Args:
        run: of `train` or a Recorder; a tree is given back as it is.
        solutions: of `solve`, `predict_charges` or `solve_charges`; each is compared with the run, and beside a central
            flow with the run's own time average too.
        name: of the argument, for messages.

    Returns:
        Groups `/discrete`, `/flows/<name>`, `/laws/<name>` and `/comparison/<name>`.

    Raises:
        ArgumentError: neither a tree nor a dataset, or two solutions of one flow.
        ResultError: a tree without a run, or a dataset that is no run.
        AlignmentError: a solution of another run.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10)
        >>> tree = nm_ode.plots.as_tree(run, nm_ode.solve(nm_ode.GradientFlow(problem), run))
        >>> tree.groups
        ('/', '/discrete', '/flows', '/comparison', '/flows/gradient', '/comparison/gradient')
    """
    if isinstance(run, xr.DataTree):
        if solutions:
            raise ArgumentError(
                f"{name} is a tree, which has its solutions in it: give a run beside solutions"
            )
        if "discrete" not in run.children:
            raise ResultError(f"{name} has no group 'discrete', so it is not the tree of a study")
        return run
    if not isinstance(run, xr.Dataset):
        raise ArgumentError(
            f"{name} must be a study's tree (nm_ode.open_store) or a run (nm_ode.train); {said(run)} was given"
        )
    if what := _other_than_a_run(run):
        raise ResultError(f"{name} is {what}: give the run, and draw nm_ode.plots.as_tree(run, solution)")
    run_info(run)
    run, curvature = without_curvature(run)
    groups = {"/discrete": run}
    if curvature is not None:
        groups["/discrete/curvature"] = curvature
    central = any(isinstance(one, xr.Dataset) and predicts_variance(one) for one in solutions)
    average = True if central and has_average(run) else None
    for solution in solutions:
        group, found = _group(solution)
        if f"/{group}/{found}" in groups:
            raise ArgumentError(f"two of the solutions are of {found!r}: give one of each flow or law")
        groups |= {
            f"/{group}/{found}": solution,
            f"/comparison/{found}": compare(run, solution, average=average),
        }
    return xr.DataTree.from_dict(groups)


def study_axes(tree: xr.DataTree) -> tuple[str, ...] | None:
    """Axes of a study of many members, none of one that was selected; None of any other tree."""
    root = tree.to_dataset(inherit=False)
    if not {"whole", "status"} <= set(root.data_vars):
        return None
    return tuple(str(dim) for dim in root["whole"].dims)


def alone(data: Given) -> xr.DataTree:
    """The tree of one run.

    Raises:
        ArgumentError, ResultError: as `as_tree`, or the tree is of many members.
    """
    tree = as_tree(data, name="data")
    if study_axes(tree) is not None:
        raise ResultError(
            "data is the tree of a study of many members, and this plot is of one: open that one's store, as in "
            "nm_ode.open_store('results/<study>/study.zarr/<member>')"
        )
    return tree


def _other_than_a_run(data: xr.Dataset) -> str:
    """What was given in a run's place; empty of a run, and of what is nothing of nm_ode's."""
    if {"error", "relative_error"} <= set(data.data_vars):
        return "a comparison"
    try:
        solve_info(data)
    except ResultError:
        return ""
    return "a solution"


def _group(solution: Any) -> tuple[str, str]:
    """Where a solution lies in the tree."""
    if isinstance(solution, xr.Dataset) and "time" in solution.dims:
        return "flows", solve_info(solution).flow
    info = law_info(solution)
    return "laws", f"{info.law}_epsilon" if info.with_residual else info.law


def with_law(tree: xr.DataTree) -> xr.DataTree:
    """The tree with a prediction of its charges, where it has none: by the law that describes the run.

    Raises:
        LawError: the run recorded no charges, or no law describes them.
    """
    if "laws" in tree.children and tree["laws"].children:
        return tree
    run = tree["discrete"].to_dataset()
    refused: LawError | None = None
    for law in _LAWS:
        try:
            predicted = predict_charges(run, law)
        except LawError as error:
            refused = error
        else:
            made = tree.copy()  # shallow: the nodes are new, their arrays are not
            made[f"laws/{law}"] = xr.DataTree(predicted)
            made[f"comparison/{law}"] = xr.DataTree(compare(run, predicted))
            return made
    assert refused is not None
    raise refused


def symmetries_of_run(run: xr.Dataset) -> xr.Dataset:
    """The table of the run's symmetries; a recorder does not verify them, so residuals are not known."""
    names, counts = np.unique(run["charge_symmetry"].values.astype(str), return_counts=True)
    kinds = dict(zip(run["charge_symmetry"].values.tolist(), run["kind"].values.tolist(), strict=True))
    order = {name: i for i, name in enumerate(dict.fromkeys(run["charge_symmetry"].values.tolist()))}
    places = sorted(range(len(names)), key=lambda i: order[str(names[i])])
    unknown = ("epsilon", "gradient_residual", "epsilon_share", "unexplained_residual", "hessian_residual")
    table = xr.Dataset(
        {
            "kind": ("symmetry", np.array([kinds[str(names[i])] for i in places], dtype=object)),
            "n_charges": ("symmetry", counts[places]),
            "within": ("symmetry", np.array([""] * len(places), dtype=object)),
            **{name: ("symmetry", np.full(len(places), np.nan)) for name in unknown},
        },
        coords={"symmetry": np.array([str(names[i]) for i in places], dtype=object)},
    )
    return write(table, SymmetriesInfo(int(counts.sum())))


def with_symmetries(tree: xr.DataTree) -> xr.DataTree:
    """The tree with the table of the symmetries whose charges were recorded, and a law of these, where it has none.

    Raises:
        LawError: no law describes the charges.
    """
    run = tree["discrete"].to_dataset()
    if "symmetries" in tree.children or not run.get("charge", xr.DataArray([])).size:
        return tree
    made = with_law(tree).copy()
    made["symmetries"] = xr.DataTree(symmetries_of_run(run))
    return made


def panels(
    axes: Axes | Panels,
    shape: tuple[int, int],
    height: float,
    *,
    of: str,
) -> Grid:
    """Axes in rows and columns: those given, or of a figure of its own.

    Args:
        axes: as many as there are panels, in any shape; None for new ones.
        shape: rows and columns.
        height: of a new figure, in inches.
        of: name of the plot, for messages.

    Raises:
        ArgumentError: too few axes, or something else.
    """
    if axes is None:
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return np.asarray(figure.subplots(*shape, squeeze=False))
    given = np.asarray(axes, dtype=object).reshape(-1)
    if not all(isinstance(one, Axes) for one in given):
        raise ArgumentError(f"axes must be matplotlib's Axes; {said(axes)} was given")
    count = shape[0] * shape[1]
    if len(given) < count:
        raise ArgumentError(f"{of} has {count} panels here: axes must be as many; {len(given)} were given")
    return given[:count].reshape(shape)


def flat_panels(
    axes: Axes | Panels,
    count: int,
    columns: int,
    height: float,
    *,
    of: str,
) -> Grid:
    """So many panels, row by row: as `panels`, but given axes need not fill a grid, and the rest of a new one is empty.

    Raises:
        ArgumentError: as `panels`.
    """
    if axes is not None:
        return panels(axes, (1, count), height, of=of).reshape(-1)
    grid = panels(None, (-(-count // columns), columns), height, of=of).reshape(-1)
    for panel in grid[count:]:
        panel.set_axis_off()
    return grid[:count]


def figure_of(drawn: Grid) -> Figure:
    """The figure that panels are in."""
    figure = drawn.reshape(-1)[0].figure
    assert isinstance(figure, Figure)
    return figure
