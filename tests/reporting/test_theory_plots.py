"""Residuals of constraints, and loss with accuracy over held-out samples, as they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib import rcParams
from matplotlib.axes import Axes

import nm_ode
from nm_ode.data import digits
from nm_ode.observers import HeldOut
from nm_ode.plots import accuracy, as_tree, constraint_residuals
from nm_ode.reporting import PLOTS
from nm_ode.reporting.plots import RUN_PLOTS
from nm_ode.reporting.style import svg
from nm_ode.results import ResultError
from tests.reporting.trees import small_problem


def held_out_digits() -> HeldOut:
    data = digits(60)
    return HeldOut((data.x[40:], data.y[40:]), every=5)


def line_of(axes: Axes, label: str) -> np.ndarray:
    (found,) = (line for line in axes.lines if str(line.get_label()).startswith(label))
    return np.asarray(found.get_ydata(), dtype=float)


@pytest.fixture(scope="module")
def held_out(problem) -> xr.Dataset:
    observe = [held_out_digits()]
    return nm_ode.train(problem, nm_ode.SGD(lr=0.2), 20, batch_size=20, save_every=10, observe=observe)


def test_loss_and_accuracy_are_those_recorded(held_out) -> None:
    before = dict(rcParams)
    axes = accuracy(held_out)
    (right,) = (one for one in axes.figure.axes if one is not axes)
    np.testing.assert_array_equal(line_of(axes, "loss over held-out"), held_out.test_loss)
    np.testing.assert_array_equal(line_of(axes, "loss over all"), held_out.full_loss)
    np.testing.assert_array_equal(line_of(axes, "loss of each step"), held_out.loss)
    np.testing.assert_array_equal(line_of(right, "accuracy"), held_out.test_accuracy)
    np.testing.assert_array_equal(right.lines[0].get_xdata(), [0, 5, 10, 15, 20])
    assert axes.get_xlabel() == "step"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any("accuracy" in label for label in labels)
    assert dict(rcParams) == before


def test_beside_a_flow_they_are_over_its_time(problem, held_out) -> None:
    flow = nm_ode.solve(nm_ode.GradientFlow(problem), held_out, rtol=1e-3, observe=[held_out_digits()])
    axes = accuracy(as_tree(held_out, flow))
    title = flow.attrs["title"]
    np.testing.assert_array_equal(line_of(axes, f"{title}: loss"), flow.test_loss)
    (right,) = (one for one in axes.figure.axes if one is not axes)
    np.testing.assert_array_equal(line_of(right, f"{title}: accuracy"), flow.test_accuracy)
    assert "flow time" in axes.get_xlabel()
    np.testing.assert_allclose(right.lines[0].get_xdata(), held_out.held_out_time)


def test_a_loss_alone_has_no_axis_for_accuracies(held_out) -> None:
    axes = accuracy(held_out.drop_vars("test_accuracy"))
    assert axes.figure.axes == [axes]


def test_reports_show_both_and_not_a_second_time(held_out) -> None:
    tree = as_tree(held_out)
    for registry in (PLOTS, RUN_PLOTS):
        assert registry["accuracy"].applies(tree)
        assert "<svg" in svg(registry["accuracy"].figure(tree))
    assert not PLOTS["observed"].applies(tree)
    without = as_tree(held_out.drop_vars(["test_accuracy", "test_loss"]))
    assert not PLOTS["accuracy"].applies(without)
    with pytest.raises(ResultError, match="HeldOut"):
        accuracy(without)


@pytest.fixture(scope="module")
def constrained() -> xr.Dataset:
    problem = small_problem("relu", norm="batch")
    found = nm_ode.symmetries_of(problem)
    return nm_ode.train(problem, nm_ode.SGD(lr=0.1), 9, observe=[nm_ode.Constraints(found, every=4)])


@pytest.mark.parametrize("of", ["gradient", "curvature"])
def test_each_symmetrys_residual_and_the_floors_are_drawn(constrained, of: str) -> None:
    axes = constraint_residuals(constrained, of=of)
    drawn = {tuple(np.asarray(line.get_ydata(), dtype=float)) for line in axes.lines}
    residual, floor = constrained[f"{of}_constraint"], constrained[f"{of}_constraint_floor"]
    for i, kind in enumerate(constrained.constraint_kind.values):
        series = residual.isel(constraint_symmetry=i)
        assert tuple(series.where(series > 0).values) in drawn
        own = floor.isel(constraint_symmetry=constrained.constraint_kind.values == kind)
        assert tuple(own.max("constraint_symmetry").values) in drawn
    assert axes.get_yscale() == "log"
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    # BatchNorm's ε breaks the scale symmetry, and nothing else is broken.
    above = [text for text in texts if "above rounding" in text]
    assert len(above) == 1
    assert "scale" in above[0]
    assert "1e-05" in above[0]
    names = [f"{name} → {'another layer, ' * 20}" for name in constrained.constraint_symmetry.values]
    axes = constraint_residuals(constrained.assign_coords(constraint_symmetry=names), of="gradient")
    assert max(len(text.get_text()) for text in axes.get_legend().get_texts()) < 120


def test_reports_show_the_constraints_that_were_measured(constrained) -> None:
    tree = as_tree(constrained)
    for registry in (PLOTS, RUN_PLOTS):
        assert registry["constraints"].applies(tree)
        assert len(registry["constraints"].figure(tree).axes) == 2
    gradient_alone = constrained.copy(deep=True)
    gradient_alone["curvature_constraint"][:] = np.nan
    gradient_alone["constraint_reason"][:] = "there is no second derivative of it"
    assert len(PLOTS["constraints"].figure(as_tree(gradient_alone)).axes) == 1
    with pytest.raises(ResultError, match="no second derivative of it"):
        constraint_residuals(gradient_alone, of="curvature")
    with pytest.raises(nm_ode.ArgumentError, match="'gradient' or 'curvature'"):
        constraint_residuals(constrained, of="hessian")


def test_a_run_without_constraints_says_what_to_observe(held_out) -> None:
    assert not PLOTS["constraints"].applies(as_tree(held_out))
    with pytest.raises(ResultError, match="Constraints"):
        constraint_residuals(held_out)
