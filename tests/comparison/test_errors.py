"""compare: distances that one can check by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from nm_ode import SGD, GradientFlow, Problem, SolveError, compare, modified_flow, solve, train
from nm_ode.comparison import AlignmentError
from nm_ode.results import ResultError, comparison_info


@pytest.fixture(scope="module")
def run(tiny_module: Problem) -> xr.Dataset:
    return train(tiny_module, SGD(lr=0.1), steps=10, save_every=2)


@pytest.fixture(scope="module")
def solution(tiny_module: Problem, run: xr.Dataset) -> xr.Dataset:
    return solve(GradientFlow(tiny_module), run, rtol=1e-9)


@pytest.fixture(scope="module")
def tiny_module(tiny: Problem) -> Problem:
    return tiny


def test_errors_are_distances(run, solution) -> None:
    comparison = compare(run, solution)
    difference = solution["theta"].values - run["theta"].values
    motion = run["theta"].values - run["theta"].values[0]
    np.testing.assert_allclose(comparison["error"], np.linalg.norm(difference, axis=1))
    np.testing.assert_allclose(
        comparison["relative_error"][1:],
        np.linalg.norm(difference, axis=1)[1:] / np.linalg.norm(motion, axis=1)[1:],
    )
    assert np.isnan(comparison["relative_error"][0])
    np.testing.assert_allclose(comparison["loss_gap"], solution["loss"].values - run["full_loss"].values)
    assert comparison["saved_step"].values.tolist() == [0, 2, 4, 6, 8, 10]
    np.testing.assert_array_equal(comparison["saved_time"], run["saved_time"])
    info = comparison_info(comparison)
    assert (info.flow, info.law, info.expected_order, info.holds_from) == ("gradient", None, 1, None)


def test_layers_make_up_the_whole(run, solution) -> None:
    comparison = compare(run, solution)
    np.testing.assert_allclose(np.linalg.norm(comparison["layer_error"], axis=1), comparison["error"])
    first = slice(0, 16)  # linear1: 4×3 weights and 4 biases
    difference = (solution["theta"].values - run["theta"].values)[:, first]
    np.testing.assert_allclose(
        comparison["layer_error"].sel(layer="linear1"), np.linalg.norm(difference, axis=1)
    )


def test_a_flow_compared_with_itself_has_no_error(run, solution) -> None:
    same = solution.assign(theta=(("time", "param"), run["theta"].values))
    comparison = compare(run, same)
    assert (comparison["error"] == 0).all()
    assert not comparison["solver_limited"].any()


def test_a_good_solver_is_not_flagged(run, solution) -> None:
    comparison = compare(run, solution)
    assert (comparison["solver_error_ratio"][1:] < 1e-3).all()
    assert not comparison["solver_limited"].any()


def test_a_solver_that_spoils_the_result_is_flagged(tiny_module, run) -> None:
    flow = modified_flow(tiny_module, SGD(lr=0.1), order=6)
    sloppy = solve(flow, run, engine="scipy", method="RK23", rtol=1e-2)
    assert compare(run, sloppy)["solver_limited"][1:].all()


def test_a_check_that_did_not_finish_is_flagged(run, solution) -> None:
    unfinished = solution.assign(solver_error=("time", np.full(6, np.nan)))
    assert compare(run, unfinished)["solver_limited"][1:].all()


def test_a_solution_that_stopped_early_is_compared_as_far_as_it_goes(tiny_module, run) -> None:
    with pytest.raises(SolveError) as caught:
        solve(GradientFlow(tiny_module), run, engine="scipy", rtol=1e-9, max_rhs=40)
    partial = caught.value.solution
    comparison = compare(run, partial)
    assert 0 < comparison.sizes["saved_step"] == partial.sizes["time"] < 6


def test_without_losses_and_check_there_are_errors_still(tiny_module, run) -> None:
    bare = solve(GradientFlow(tiny_module), run, record=["theta"], check=False)
    assert set(compare(run, bare).data_vars) == {
        "error",
        "motion",
        "relative_error",
        "layer_error",
        "layer_relative_error",
    }


def test_what_does_not_match_is_named(tiny_module, run, solution, tanh_digits) -> None:
    with pytest.raises(AlignmentError, match="not the run's saved times"):
        compare(run, solution.assign_coords(time=solution["time"] * 1.01))
    with pytest.raises(AlignmentError, match="the solution has no 'theta'"):
        compare(run, solution.drop_vars("theta"))
    other = train(tanh_digits, SGD(lr=0.1), steps=2)
    with pytest.raises(AlignmentError, match="different models"):
        compare(other, solution)
    with pytest.raises(ResultError, match=r"not a run of nm_ode\.train"):
        compare(run.drop_attrs(deep=False), solution)


def test_every_variable_has_a_name_and_units(run, solution) -> None:
    variables = compare(run, solution).variables
    assert all({"long_name", "units"} <= set(variable.attrs) for variable in variables.values())
