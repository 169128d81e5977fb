"""A run is compared with a solution that starts with it, of its own loss and learning rate, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import nm_ode
from nm_ode import SGD, Charges, GradientFlow, Problem, compare, modified_flow, predict_charges, solve, train
from nm_ode.comparison import AlignmentError
from tests.loss.test_precision import X, Y


@pytest.fixture(scope="module")
def linear() -> Problem:
    torch.manual_seed(0)
    return Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X, Y))


@pytest.fixture(scope="module")
def run(linear: Problem):
    return train(linear, SGD(lr=0.05), steps=10)


def test_another_start_is_refused(linear: Problem, run) -> None:
    for away in (1.0, 1e-6, 1e-10):
        solution = solve(GradientFlow(linear), run, theta0=linear.theta0 + away)
        with pytest.raises(AlignmentError, match=r"starts elsewhere than the run.*solve with t=run"):
            compare(run, solution)
    assert (
        float(compare(run, solve(GradientFlow(linear), run, theta0=linear.theta0.numpy()))["error"][0]) == 0
    )


@pytest.mark.parametrize(
    ("trained", "solved"), [("float32", "float32"), ("float32", "float64"), ("float64", "float32")]
)
def test_the_rounding_of_a_dtype_is_no_other_start(trained: str, solved: str) -> None:
    def problem(dtype: str) -> Problem:
        torch.manual_seed(0)
        return Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X, Y), dtype=getattr(torch, dtype))

    run = train(problem(trained), SGD(lr=0.05), steps=5)
    compared = compare(run, solve(GradientFlow(problem(solved)), run))
    assert float(compared["error"][0]) < 1e-6


def test_a_part_of_a_run_and_of_its_solution(linear: Problem, run) -> None:
    later = run.isel(saved_step=slice(4, None))
    compare(later, solve(GradientFlow(linear), later))
    whole = solve(GradientFlow(linear), run)
    compared = compare(later, whole.isel(time=slice(4, None)))
    np.testing.assert_array_equal(compared["error"], compare(run, whole)["error"][4:])
    with pytest.raises(AlignmentError, match="not the run's saved times"):
        compare(run, solve(GradientFlow(linear), later))


def test_another_learning_rate_is_refused(linear: Problem, run) -> None:
    other = solve(modified_flow(linear, SGD(lr=0.1), 2), run["saved_time"].values)
    with pytest.raises(AlignmentError, match=r"at lr = 0\.1, and the run has lr = 0\.05"):
        compare(run, other)


def test_another_loss_at_the_same_theta_is_refused(linear: Problem, run) -> None:
    torch.manual_seed(0)
    few = Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X[:12], Y[:12]))
    with pytest.raises(AlignmentError, match="of another loss than the run"):
        compare(run, solve(GradientFlow(few), run))
    compare(run, solve(GradientFlow(few), run, record=["theta"]))  # of two losses on purpose


def test_a_warm_run_is_not_compared_with_a_start_at_rest(linear: Problem) -> None:
    sgd = SGD(lr=0.02, momentum=0.8)
    first = train(linear, sgd, steps=10)
    warm = train(linear, sgd, steps=5, state0=nm_ode.final_state(first))
    flow = modified_flow(linear, sgd, 2)
    compare(warm, solve(flow, warm))
    at_rest = solve(flow, warm["saved_time"].values, theta0=torch.from_numpy(warm["theta"].values[0]))
    with pytest.raises(AlignmentError, match="under way, and the solution with one at rest"):
        compare(warm, at_rest)


def test_charges_of_another_start_or_run_are_refused() -> None:
    def charged(seed: int, lr: float):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        found = nm_ode.find_symmetries(model, X, loss="mse")
        problem = Problem(model, nn.functional.mse_loss, (X, Y))
        return train(problem, SGD(lr=lr), steps=6, observe=[Charges(found)])

    run, elsewhere, faster = charged(0, 0.05), charged(1, 0.05), charged(0, 0.1)
    compare(run, predict_charges(run, "exact"))
    with pytest.raises(AlignmentError, match="starts elsewhere"):
        compare(run, predict_charges(elsewhere, "exact"))
    with pytest.raises(AlignmentError, match="of another run"):
        compare(run, predict_charges(faster, "exact"))


def test_a_solution_at_some_of_the_runs_saved_times(linear: Problem, run) -> None:
    some = run.isel(saved_step=[0, 3, 10])
    compared = compare(run, solve(GradientFlow(linear), some))
    assert compared["saved_step"].values.tolist() == [0, 3, 10]
    xr.testing.assert_allclose(compared, compare(some, solve(GradientFlow(linear), some)))
    between = some.assign_coords(saved_time=("saved_step", some["saved_time"].values * [1, 1.01, 1]))
    with pytest.raises(AlignmentError, match="not the run's saved times"):
        compare(run, solve(GradientFlow(linear), between["saved_time"].values))
