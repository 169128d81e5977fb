"""Plots: axes that one can go on drawing in, true labels, drawn where they apply."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nm_ode
from nm_ode.optimizers.schedules import Drop
from nm_ode.reporting import PLOTS
from nm_ode.reporting.plots.flows import error_plot, loss_plot
from nm_ode.reporting.plots.orders import order_plot
from nm_ode.reporting.plots.sharpness import sharpness_plot
from nm_ode.reporting.style import svg, time_label
from tests.reporting.trees import study_tree


@pytest.mark.parametrize(
    ("fixture", "applying"),
    [
        ("with_flows", ["loss", "modified_loss", "error", "layers"]),
        ("with_ladder", ["loss", "modified_loss", "error", "layers", "orders", "sharpness"]),
        (
            "with_charges",
            ["loss", "charges_by_kind", "charges_by_symmetry", "parameters_and_channels", "phase_portrait"],
        ),
    ],
)
def test_each_is_drawn_where_it_applies(request, fixture: str, applying: list[str]) -> None:
    tree = request.getfixturevalue(fixture)
    assert [name for name, plot in PLOTS.items() if plot.applies(tree)] == applying
    before = dict(rcParams)
    for name in applying:
        assert isinstance(PLOTS[name].draw(tree), Axes | Figure)
        assert "<svg" in svg(PLOTS[name].figure(tree))
    assert dict(rcParams) == before


def test_a_drawing_is_the_same_for_the_same_data(with_flows) -> None:
    assert svg(PLOTS["loss"].figure(with_flows)) == svg(PLOTS["loss"].figure(with_flows))


def test_axes_of_the_users_own_are_drawn_in(with_ladder) -> None:
    figure = Figure()
    grid = figure.subplots(2, 2).reshape(-1)
    for axes, draw in zip(grid, (loss_plot, error_plot, order_plot, sharpness_plot), strict=True):
        assert draw(with_ladder, axes) is axes
        assert axes.lines


def lines(axes: Axes, label: str) -> np.ndarray:
    return np.asarray(next(line for line in axes.lines if line.get_label() == label).get_ydata(), float)


def test_what_is_drawn_is_what_was_measured(with_flows) -> None:
    error = lines(error_plot(with_flows), "gradient flow")
    np.testing.assert_array_equal(error, with_flows["comparison/gradient/error"][1:])
    loss = lines(loss_plot(with_flows), "discrete run")
    np.testing.assert_array_equal(loss, with_flows["discrete/full_loss"])


def test_a_point_out_of_the_fit_is_hollow(with_ladder) -> None:
    def hollow(tree: xr.DataTree) -> int:
        return sum(len(line.get_xdata()) for line in order_plot(tree).lines if line.get_fillstyle() == "none")

    left_out = with_ladder.copy(deep=True)
    left_out["convergence/left_out"][:] = np.array([["rounding", ""], ["", ""], ["", ""]], dtype=object)
    assert hollow(left_out) == hollow(with_ladder) + 1


@pytest.mark.parametrize(
    ("optimizer", "schedule", "label"),
    [
        (nm_ode.SGD(lr=0.1), None, "t = lr · step  (lr = 0.1)"),
        (nm_ode.SGD(lr=0.1, momentum=0.9), None, "t = lr · step  (lr = 0.1)"),
        (nm_ode.SGD(lr=0.1, momentum=0.9, dampening=0.5), None, "t = 0.05 · step  (lr = 0.1)"),
        (nm_ode.SGD(lr=0.1), Drop((3,), 0.5), "t = Σ lr"),
        (nm_ode.SGD(lr=0.1, momentum=0.9, dampening=0.5), Drop((3,), 0.5), "t = 0.5 · Σ lr"),
        (nm_ode.Adam(lr=1e-3), None, "t = lr · step  (lr = 0.001)"),
    ],
)
def test_the_time_axis_says_what_a_step_takes(problem, optimizer, schedule, label: str) -> None:
    run = nm_ode.train(problem, optimizer, 6, schedule=schedule)
    assert label in time_label(study_tree(run))


def test_a_ladder_of_which_nothing_was_solved_is_drawn(with_ladder) -> None:
    unsolved = with_ladder.copy(deep=True)
    for name in ("error", "solver_error", "observed_order"):
        unsolved[f"convergence/{name}"][:] = np.nan
    unsolved["convergence/left_out"][:] = "not_solved"
    assert "no order" in svg(PLOTS["orders"].figure(unsolved))


def test_layers_that_do_not_move_are_drawn(with_flows) -> None:
    still = with_flows.copy(deep=True)
    for name in ("gradient", "modified_2_hessian"):
        if name in still["comparison"].children:
            still[f"comparison/{name}/layer_relative_error"][:] = np.nan
    assert "<svg" in svg(PLOTS["layers"].figure(still))
