"""nm_ode.plots: the report's plots for a user, of a tree or a run, in axes of the user's own or new ones."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nm_ode
from nm_ode import plots
from nm_ode.comparison import AlignmentError
from nm_ode.results import solve_info
from tests.reporting.trees import study_tree


def test_every_name_is_there() -> None:
    assert nm_ode.plots is plots
    for name in plots.__all__:
        assert callable(getattr(plots, name)) or name == "STYLE"
    assert set(plots.__all__) <= set(dir(plots))
    with pytest.raises(AttributeError, match="chrage_grid"):
        plots.chrage_grid  # noqa: B018


@pytest.mark.parametrize("name", ["loss", "error", "layer_errors", "orders_in_lr", "stability"])
def test_one_panel_is_drawn_in_the_users_axes_or_in_new_ones(with_ladder, name: str) -> None:
    ax, before = Figure().subplots(), dict(rcParams)
    assert getattr(plots, name)(with_ladder, ax=ax) is ax
    new = getattr(plots, name)(with_ladder)
    assert new is not ax
    assert len(new.lines) == len(ax.lines) > 0
    assert dict(rcParams) == before
    with pytest.raises(nm_ode.ArgumentError, match="ax must be matplotlib's Axes; 3 was given"):
        getattr(plots, name)(with_ladder, ax=3)


@pytest.mark.parametrize("name", ["charges_by_kind", "charges_by_symmetry", "numbers", "batch_loss"])
def test_several_panels_are_an_array_of_axes(with_charges, name: str) -> None:
    panels = getattr(plots, name)(with_charges)
    assert panels.ndim == 1
    assert all(isinstance(panel, Axes) and panel.lines for panel in panels)


@pytest.mark.parametrize("name", ["charges_by_kind", "charges_by_symmetry", "numbers"])
def test_several_panels_are_drawn_in_the_users_axes(with_charges, name: str) -> None:
    draw = getattr(plots, name)
    count = len(draw(with_charges))
    axes = Figure().subplots(count + 1)
    drawn = draw(with_charges, axes=axes)
    assert drawn.tolist() == axes[:count].tolist()
    assert all(panel.lines and panel.get_xlabel() for panel in drawn)
    assert not axes[count].lines
    with pytest.raises(nm_ode.ArgumentError, match=f"{count} panels"):
        draw(with_charges, axes=axes[: count - 1])


def test_what_was_observed_is_drawn_in_the_users_axes(problem) -> None:
    optimizer = nm_ode.SGD(lr=0.1)
    run = nm_ode.train(problem, optimizer, 6, save_every=2, observe=[nm_ode.Statistics()])
    panels = plots.observed_numbers(run)
    axes = Figure().subplots(len(panels))
    given = plots.observed_numbers(run, axes=axes)
    assert given.tolist() == axes.tolist()
    for ours, users in zip(panels, given, strict=True):
        np.testing.assert_array_equal(ours.lines[0].get_ydata(), users.lines[0].get_ydata())


def test_a_run_is_drawn_as_its_tree_is(problem) -> None:
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 8, save_every=2, observe=[nm_ode.Curvature(3)])
    solution = nm_ode.solve(nm_ode.GradientFlow(problem), run)
    (alone,) = plots.loss(run).lines
    np.testing.assert_array_equal(alone.get_ydata(), run.full_loss)
    np.testing.assert_array_equal(plots.stability(run).lines[0].get_ydata(), run.normalised_sharpness)
    drawn = plots.error(plots.as_tree(run, solution)).lines[0]
    np.testing.assert_array_equal(drawn.get_ydata(), nm_ode.compare(run, solution).error[1:])
    assert drawn.get_label() == solve_info(solution).title


def test_what_there_is_nothing_of_is_refused_with_the_remedy(problem, with_flows) -> None:
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 4)
    for draw, data, words in (
        (plots.error, run, "as_tree"),
        (plots.stability, with_flows, "Curvature"),
        (plots.charges_by_kind, with_flows, "charges"),
        (plots.eigenvalues, run, "Hessian"),
        (plots.phase_diagram, with_flows, "members"),
    ):
        with pytest.raises(nm_ode.ResultError, match=words):
            draw(data)


def test_what_is_no_run_is_refused(problem, with_flows) -> None:
    with pytest.raises(nm_ode.ArgumentError, match=r"open_store.*'run\.zarr' was given"):
        plots.loss("run.zarr")
    with pytest.raises(nm_ode.ResultError, match=r"not a run of nm_ode\.train"):
        plots.loss(xr.Dataset())
    with pytest.raises(nm_ode.ResultError, match="discrete"):
        plots.loss(xr.DataTree())
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 4, save_every=2)
    solution = nm_ode.solve(nm_ode.GradientFlow(problem), run)
    with pytest.raises(nm_ode.ArgumentError, match="has its solutions"):
        plots.as_tree(with_flows, solution)
    with pytest.raises(nm_ode.ArgumentError, match="two of the solutions"):
        plots.as_tree(run, solution, solution)
    with pytest.raises(AlignmentError):
        plots.as_tree(nm_ode.train(problem, nm_ode.SGD(lr=0.1), 6, save_every=3), solution)


def test_a_study_of_many_members_is_no_run(with_flows) -> None:
    study = study_tree(with_flows["discrete"].to_dataset())
    study.dataset = xr.Dataset({"whole": ((), True), "status": ((), "complete")})
    with pytest.raises(nm_ode.ResultError, match="open that one's store"):
        plots.loss(study)
