"""What a caller may give `solve`, and the sentence for what it cannot take."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import nm_ode
from bridges import EngineError
from nm_ode import SGD, GradientFlow, NmOdeError, Problem, SolveError, solve, solve_info
from tests.loss.test_precision import X, Y


@pytest.fixture(scope="module")
def linear() -> Problem:
    torch.manual_seed(0)
    return Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X, Y))


@pytest.mark.parametrize("name", ["rtol", "atol", "max_step", "max_steps", "max_rhs", "max_seconds"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1", True, [1.0], 10**400])
def test_values_that_no_engine_takes_are_refused_before_anything_is_computed(name: str, value) -> None:
    evaluated = []

    def loss(out, y):
        evaluated.append(1)
        return nn.functional.mse_loss(out, y)

    flow = GradientFlow(Problem(nn.Linear(4, 2), loss, (X, Y)))
    before = len(evaluated)
    with pytest.raises(EngineError, match=name):
        solve(flow, [0.0, 1.0], **{name: value})
    assert len(evaluated) == before


@pytest.mark.parametrize("count", ["max_steps", "max_rhs"])
def test_counts_beyond_64_bits_are_refused(linear: Problem, count: str) -> None:
    with pytest.raises(EngineError, match=f"{count} = 1e\\+30: it must be a whole number"):
        solve(GradientFlow(linear), [0.0, 1.0], **{count: 10**30})


def test_a_step_of_more_steps_than_anyone_waits_for(linear: Problem) -> None:
    for options in ({"engine": "scipy", "method": "RK8", "step": 1e-15}, {"max_step": 1e-15}):
        with pytest.raises(EngineError, match=r"is too small: over the time 1 that is 1.0e\+15 steps"):
            solve(GradientFlow(linear), [0.0, 1.0], **options)


def test_numbers_and_vectors_of_any_kind(linear: Problem) -> None:
    plain = solve(GradientFlow(linear), [0.0, 1.0], theta0=linear.theta0, rtol=1e-5, max_steps=1000)
    for theta0 in (linear.theta0.numpy(), linear.theta0.tolist(), linear.theta0.float().double()):
        for rtol in (np.float64(1e-5), torch.tensor(1e-5, dtype=torch.float64), np.array(1e-5)):
            other = solve(
                GradientFlow(linear),
                [0.0, 1.0],
                theta0=theta0,
                rtol=rtol,
                max_steps=np.int64(1000),
                engine=None,
            )
            np.testing.assert_allclose(other["theta"], plain["theta"], rtol=1e-6)
    assert "loss" in solve(GradientFlow(linear), [0.0, 1.0], record="loss", check=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": 3}, "engine must be one of 'auto', .*'scipy'.*; 3 was given"),
        ({"engine": "sundail"}, "did you mean 'sundials'.*Known: .*auto"),
        ({"engine": "scipy", "method": 8}, "method must be the name"),
        ({"check": "no"}, "check must be True or False; 'no' was given"),
        ({"record": "los", "check": False}, "record: unknown los; known are"),
        ({"record": 3, "check": False}, "record must be a list of names; 3 was given"),
        ({"record": [3], "check": False}, "record: unknown 3"),
        ({"theta0": [1.0]}, r"theta0 has shape \(1,\)"),
        ({"theta0": "x"}, "theta0 must be .*; .x. was given"),
        ({"theta0": np.full(10, np.nan)}, "theta0 has 10 values that are NaN"),
    ],
)
def test_what_cannot_be_taken_is_named(linear: Problem, options, sentence: str) -> None:
    with pytest.raises(NmOdeError, match=sentence):
        solve(GradientFlow(linear), [0.0, 1.0], **options)


@pytest.mark.parametrize("flow", [None, "gradient", nn.Linear(4, 2), SGD(lr=0.1), GradientFlow], ids=str)
def test_what_is_no_flow_is_named(flow) -> None:
    with pytest.raises(NmOdeError, match="the first argument must be a flow"):
        solve(flow, [0.0, 1.0])


def test_a_problem_or_a_solution_in_place_of_a_flow_or_a_run(linear: Problem) -> None:
    with pytest.raises(NmOdeError, match=r"must be a flow, .*Problem"):
        solve(linear, [0.0, 1.0])
    with pytest.raises(NmOdeError, match=r"is not a run of nm_ode.train"):
        solve(GradientFlow(linear), solve(GradientFlow(linear), [0.0, 1.0]))


def test_a_stochastic_flow_is_sent_to_ensembles(linear: Problem) -> None:
    factor = torch.ones(linear.layout.size, dtype=torch.float64)
    with pytest.raises(NmOdeError, match=r"use nm_ode.solve_ensemble"):
        solve(nm_ode.StochasticModifiedFlow(linear, SGD(lr=0.1), factor), [0.0, 1.0])


@pytest.mark.parametrize("engine", ["auto", "scipy", "sundials"])
def test_nan_in_the_data_is_not_blamed_on_tolerances(engine: str) -> None:
    x = X.clone()
    x[3, 1] = torch.nan
    with pytest.raises(NmOdeError, match="data") as caught:
        solve(
            GradientFlow(Problem(nn.Linear(4, 2), nn.functional.mse_loss, (x, Y))), [0.0, 1.0], engine=engine
        )
    assert "rtol" not in str(caught.value)


@pytest.mark.parametrize("limit", ["max_steps", "max_rhs"])
def test_a_fixed_step_is_not_told_to_loosen_tolerances(linear: Problem, limit: str) -> None:
    with pytest.raises(SolveError, match=f"raise {limit}, or take a larger step"):
        solve(GradientFlow(linear), [0.0, 1.0], engine="scipy", method="RK8", step=0.01, **{limit: 5})


def test_what_was_asked_is_in_the_record(linear: Problem) -> None:
    about = solve_info(solve(GradientFlow(linear), [3.0, 4.0], rtol=1e-5))
    assert (about.rtol_requested, about.dtype, about.start_time) == (1e-5, "float64", 3.0)
