"""The solver's own error is a true one, or it says that it is not known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bridges import ENGINES
from nm_ode import SGD, GradientFlow, Problem, compare, modified_flow, solve, solve_info, train
from nm_ode.flows import Flow
from tests.bridges.toy_engine import ToyEngine
from tests.loss.test_precision import X, Y


@pytest.fixture(scope="module")
def linear() -> Problem:
    torch.manual_seed(0)
    return Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X, Y))


@pytest.fixture(scope="module")
def run(linear: Problem):
    return train(linear, SGD(lr=0.05), steps=100, save_every=20)


@pytest.fixture(scope="module")
def right(linear: Problem, run) -> np.ndarray:
    return solve(GradientFlow(linear), run, rtol=1e-10)["theta"].values


@pytest.mark.parametrize(
    "options",
    [
        *({"atol": atol} for atol in (1.0, 1e2, 1e4, 1e8)),
        {"rtol": 0.5},
        {"rtol": 0.1, "engine": "scipy", "method": "RK23"},
        {"atol": 1e2, "engine": "scipy", "method": "RK23"},
        {"atol": 1e2, "engine": "sundials"},
        {"atol": 1e8, "engine": "sundials", "method": "Adams"},
        {"engine": "scipy", "method": "Midpoint", "step": 2.0},
        {"engine": "scipy", "method": "RK8", "step": 50.0},
    ],
    ids=str,
)
def test_a_wrong_solution_is_not_called_good(linear: Problem, run, right, options) -> None:
    """Whatever the tolerances: where the true error is above a tenth of what is measured, it is flagged."""
    solution = solve(GradientFlow(linear), run, **options)
    true = np.linalg.norm(solution["theta"].values - right, axis=1)
    compared = compare(run, solution)
    limited = compared["solver_limited"].values
    assert limited[true > 0.2 * compared["error"].values].all()
    claimed = solution["solver_error"].values
    assert (np.isnan(claimed) | (claimed > true / 3) | (true < 1e-9)).all()


def test_a_second_solve_takes_shorter_steps_than_the_longest_allowed(linear: Problem, run, right) -> None:
    """`max_step` decides on every step, with both tolerances."""
    solution = solve(
        GradientFlow(linear), run, engine="scipy", method="RK23", rtol=1e-2, max_step=0.1, max_steps=60
    )
    about = solve_info(solution)
    assert about.check_verdict == "measured"
    assert about.steps < 60
    true = np.linalg.norm(solution["theta"].values - right, axis=1)
    claimed = solution["solver_error"].values
    assert (claimed[1:] > true[1:] / 3).all()
    assert (claimed[1:] < 3 * true[1:]).all()


@pytest.mark.parametrize("engine", ["scipy", "sundials"])
def test_at_the_finest_tolerance_a_coarser_solve_gives_a_bound(linear: Problem, run, engine: str) -> None:
    solution = solve(GradientFlow(linear), run, rtol=3e-14, engine=engine)
    finer = solve(GradientFlow(linear), run, rtol=1e-10, engine=engine, check=False)
    assert solve_info(solution).check_verdict == "bound"
    assert 0 < float(solution["solver_error"].max()) < 1e-10
    assert float(np.linalg.norm(finer["theta"] - solution["theta"])) > float(solution["solver_error"][-1])


class Still(GradientFlow):
    """A field that is zero."""

    def rhs(self, t, state):
        return torch.zeros_like(state)


def test_a_solution_that_does_not_move_is_not_checked(linear: Problem, run) -> None:
    flow: Flow = Still(linear)
    solution = solve(flow, run)
    assert solve_info(solution).check_verdict in ("too_loose", "same_steps")
    assert np.isnan(solution["solver_error"][1:]).all()
    assert float(solution["solver_error"][0]) == 0
    assert compare(run, solution)["solver_limited"].values.tolist() == [False] + [True] * 5


def test_a_check_that_stops_says_so(linear: Problem, run) -> None:
    done = solve_info(solve(GradientFlow(linear), run, engine="scipy", check=False)).rhs_evaluations
    solution = solve(GradientFlow(linear), run, engine="scipy", max_rhs=done)
    assert solve_info(solution).check_verdict == "stopped"
    assert compare(run, solution)["solver_limited"].values[-1]


def test_a_fixed_step_without_an_estimate_is_halved(linear: Problem, run, right) -> None:
    """As a method of an engine of one's own that takes a step and estimates nothing."""

    class Engine(ToyEngine):
        name = "unestimated"

        def stepper(self, problem, method, rhs):
            stepper = super().stepper(problem, method, rhs)
            stepper.error_at_sample = lambda: None
            return stepper

    ENGINES.register("unestimated", Engine)
    try:
        solution = solve(GradientFlow(linear), run, engine="unestimated", step=0.4)
    finally:
        ENGINES.unregister("unestimated")
    assert solve_info(solution).check_verdict == "measured"
    true = np.linalg.norm(solution["theta"].values - right, axis=1)
    np.testing.assert_allclose(solution["solver_error"][1:], true[1:], rtol=0.3)


def test_one_time_alone_has_no_error(linear: Problem) -> None:
    for engine in ("auto", "scipy", "sundials"):
        solution = solve(GradientFlow(linear), [7.0], engine=engine)
        assert solution["solver_error"].values.tolist() == [0.0]
        assert solution["time"].values.tolist() == [7.0]


def test_a_check_of_few_steps_takes_more_of_them() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(24, 4, dtype=torch.float64), torch.randn(24, 2, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 2))
    flow = GradientFlow(Problem(network, nn.functional.mse_loss, (x, y)))
    times = [0.0, 0.01]
    found = solve(flow, times, engine="sundials", method="BDF", rtol=1e-3)
    exact = solve(flow, times, engine="scipy", method="DOP853", rtol=1e-11, check=False)
    error = float(np.linalg.norm(found.theta.values[-1] - exact.theta.values[-1]))
    assert solve_info(found).steps <= 10
    assert float(found.solver_error[-1]) > error / 4


def test_samples_within_the_same_first_step_are_not_called_exact(linear: Problem) -> None:
    flow = modified_flow(linear, SGD(lr=0.05), 2)
    times = np.linspace(0.0, 20.0, 41)
    found = solve(flow, times, engine="scipy", method="DOP853", rtol=1e-2, atol=1e4)
    exact = solve(flow, times, engine="scipy", method="DOP853", rtol=1e-11, check=False)
    errors = np.linalg.norm(found.theta.values - exact.theta.values, axis=1)
    known = ~np.isnan(found.solver_error.values)
    assert (found.solver_error.values[known] >= errors[known] / 10).all()
