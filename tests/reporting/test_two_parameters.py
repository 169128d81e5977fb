"""The plane of two parameters: paths, contours, level sets of a charge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import nm_ode
from nm_ode.plots import two_parameters
from nm_ode.results import ResultError


def product(start: tuple[float, float] = (1.4, 0.1)) -> nm_ode.Problem:
    """L = (1 − w₁w₂)²/2."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        for layer, value in zip(model, start, strict=True):
            layer.weight.fill_(value)
    one = torch.ones(1, 1, dtype=torch.float64)
    return nm_ode.Problem(model, lambda out, y: nn.functional.mse_loss(out, y) / 2, (one, one))


@pytest.fixture(scope="module")
def problem() -> nm_ode.Problem:
    return product()


@pytest.fixture(scope="module")
def symmetry(problem) -> nm_ode.Symmetry:
    return nm_ode.symmetries_of(problem)[0]


@pytest.fixture(scope="module")
def run(problem):
    return nm_ode.train(problem, nm_ode.SGD(lr=0.35), 8, save_every=1)


@pytest.fixture(scope="module")
def flow(problem):
    return nm_ode.solve(nm_ode.GradientFlow(problem), np.linspace(0, 2.8, 30), rtol=1e-8)


def level_sets(axes: Axes) -> list[np.ndarray]:
    """Of the thick line, which is the last of those with one level."""
    return [
        path.vertices
        for collection in axes.collections
        for path in collection.get_paths()
        if len(collection.get_linewidths()) == 1 and np.isclose(collection.get_linewidths()[0], 1.6)
    ]


def test_paths_are_those_recorded_and_flow_stays_on_the_level_set(problem, run, flow, symmetry) -> None:
    axes = two_parameters(problem, run, flow, symmetry=symmetry, points=41)
    lines = {str(line.get_label()): np.array(line.get_xydata()) for line in axes.lines}
    np.testing.assert_array_equal(lines["descent: SGD, lr = 0.35"], run.theta)
    np.testing.assert_array_equal(lines["gradient flow"], flow.theta)
    # w₁² − w₂² = const., in closed form; the contour's lines are straight between points of the grid.
    (level,) = level_sets(axes)
    np.testing.assert_allclose(level[:, 0] ** 2 - level[:, 1] ** 2, 1.4**2 - 0.1**2, atol=2e-3)
    np.testing.assert_allclose(flow.theta[:, 0] ** 2 - flow.theta[:, 1] ** 2, 1.4**2 - 0.1**2, atol=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("0.weight", "1.weight")
    for (low, high), paths in zip((axes.get_xlim(), axes.get_ylim()), np.array(run.theta).T, strict=True):
        assert low < paths.min() < paths.max() < high


def test_contours_are_those_of_the_loss(problem, run) -> None:
    axes = two_parameters(problem, run, points=31)
    contours = [
        one for one in axes.collections if getattr(one, "levels", None) is not None and not one.filled
    ]
    (one,) = contours
    for level, path in zip(one.levels, one.get_paths(), strict=True):
        w1, w2 = path.vertices.T
        np.testing.assert_allclose((1 - w1 * w2) ** 2 / 2, level, atol=4e-3)


def test_a_translations_level_sets_are_lines() -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 2, bias=False).double()

        def forward(self, x):
            return self.linear(x)

    x = torch.ones(6, 1, dtype=torch.float64)
    y = torch.tensor([0, 1, 0, 0, 1, 0])
    problem = nm_ode.Problem(Difference(), nn.functional.cross_entropy, (x, y))
    (symmetry,) = nm_ode.symmetries_of(problem)
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.5), 5, save_every=1)
    axes = two_parameters(problem, run, symmetry=symmetry, points=15)
    (level,) = level_sets(axes)
    np.testing.assert_allclose(level.sum(axis=1), float(problem.theta0.sum()), atol=1e-12)
    assert axes.get_ylabel() == "linear.weight[1]"


def test_axes_of_the_users_own_are_drawn_in(problem, run) -> None:
    axes = Figure().subplots()
    assert two_parameters(problem, run, points=5, ax=axes) is axes


def test_mistakes_are_one_sentence(problem, run, flow, symmetry, tiny) -> None:
    with pytest.raises(nm_ode.ArgumentError, match="two parameters, and this problem has 26"):
        two_parameters(tiny, run)
    with pytest.raises(nm_ode.ArgumentError, match=r"must be a nm_ode\.Problem"):
        two_parameters(nm_ode.GradientFlow(problem), run)
    with pytest.raises(nm_ode.ArgumentError, match="run must be a dataset"):
        two_parameters(problem, 3)
    with pytest.raises(ResultError, match=r"solutions\[0\] is of other parameters"):
        two_parameters(problem, run, nm_ode.solve(nm_ode.GradientFlow(tiny), [0.0, 0.1], rtol=1e-2))
    with pytest.raises(ResultError, match="no theta"):
        two_parameters(problem, run.drop_vars("theta"))
    with pytest.raises(ResultError, match="solution"):
        two_parameters(problem, run, run)
    with pytest.raises(nm_ode.ArgumentError, match="symmetry must be one"):
        two_parameters(problem, run, symmetry="rescale")
    with pytest.raises(nm_ode.ArgumentError, match="charge must be below 1"):
        two_parameters(problem, run, symmetry=symmetry, charge=1)
    with pytest.raises(nm_ode.ArgumentError, match="points"):
        two_parameters(problem, run, points=1)


def test_a_run_that_never_moves_is_drawn() -> None:
    still = product((1.0, 1.0))
    axes = two_parameters(still, nm_ode.train(still, nm_ode.SGD(lr=0.1), 2), points=5)
    assert axes.get_xlim()[0] < 1.0 < axes.get_xlim()[1]
