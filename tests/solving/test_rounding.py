"""Tolerances and the digits that a field has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import nm_ode
from bridges import EngineError
from nm_ode import GradientFlow, Problem, solve, solve_info
from tests.loss.test_precision import Inside, X, Y, problem


@pytest.mark.parametrize("engine", ["auto", "scipy", "sundials", "diffeq"])
@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-15), (torch.float32, 1e-9), (torch.float32, 1e-15)]
)
def test_a_tolerance_below_the_dtype_is_refused_by_every_engine(engine: str, dtype, rtol: float) -> None:
    linear = Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X, Y), dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(EngineError, match=f"rtol = {rtol:g} is below what {name} holds"):
        solve(GradientFlow(linear), [0.0, 10.0], rtol=rtol, engine=engine)


@pytest.mark.parametrize("engine", ["auto", "scipy", "sundials"])
def test_a_tolerance_below_the_gradients_noise_is_refused(engine: str) -> None:
    flow = GradientFlow(problem(Inside(torch.float32), nn.Tanh()))
    with pytest.raises(EngineError, match=r"rtol = 1e-09 is below .*noise.*float32 in module '1' \(Inside\)"):
        solve(flow, [0.0, 2.0], rtol=1e-9, engine=engine)


def test_the_floor_is_kept_with_the_solution_and_the_check_stays_above_it() -> None:
    coarse = solve(GradientFlow(problem(Inside(torch.float32), nn.Tanh())), [0.0, 2.0], rtol=1e-7)
    about = solve_info(coarse)
    assert about.rtol_floor is not None
    assert 1e-9 < about.rtol_floor < 1e-7
    assert about.gradient_noise is not None
    assert about.coarse == ("float32 in module '1' (Inside)",)
    assert "the smallest that rounding lets it have" in (about.check or "")
    fine = solve(GradientFlow(problem(Inside(torch.float64), nn.Tanh())), [0.0, 2.0], rtol=1e-9)
    assert solve_info(fine).rtol_floor == 3e-14
    assert solve_info(fine).gradient_noise is None
    error = float(np.linalg.norm(coarse["theta"][-1] - fine["theta"][-1]))
    assert error < 10 * float(coarse["solver_error"][-1]) + 1e-7


def test_a_tolerance_that_is_left_to_the_package_is_raised_and_says_so() -> None:
    solution = solve(GradientFlow(problem(Inside(torch.bfloat16), nn.Tanh())), [0.0, 2.0], max_rhs=2000)
    about = solve_info(solution)
    assert about.rtol > 1e-3
    assert about.rtol_requested is None
    assert "raised" in about.choice
    assert "bfloat16" in about.choice
    assert np.isfinite(solution["solver_error"]).all()


def test_the_default_of_a_float32_problem_is_attained_and_checked() -> None:
    single = Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X, Y), dtype=torch.float32)
    double = Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X, Y))
    solution = solve(GradientFlow(single), [0.0, 10.0], max_rhs=1000)
    about = solve_info(solution)
    assert about.check_verdict == "measured"
    assert about.rtol == pytest.approx(1e-5)
    right = solve(GradientFlow(double), [0.0, 10.0], theta0=single.theta0, rtol=1e-10)
    assert float(np.linalg.norm(solution["theta"][-1] - right["theta"][-1])) < 1e-4


def test_an_iterated_map_amplifies_the_noise() -> None:
    noisy = problem(Inside(torch.float32), nn.Tanh())
    sgd = nm_ode.SGD(lr=0.05)
    floors = [
        solve_info(solve(flow, [0.0, 0.1], check=False)).rtol_floor or 0.0
        for flow in (GradientFlow(noisy), nm_ode.modified_flow(noisy, nm_ode.SGD(lr=0.05, momentum=0.5), 6))
    ]
    weights = nm_ode.modified_flow(noisy, nm_ode.SGD(lr=0.05, momentum=0.5), 6).amplification
    assert sgd.lr == 0.05
    assert floors[1] / floors[0] == pytest.approx(weights)
    assert weights > 5


@pytest.mark.parametrize("engine", ["torch", "scipy"])
def test_steps_too_short_for_float32_are_not_called_exact(tiny: Problem, engine: str) -> None:
    """Both of a step and of its halves see the same theta, to float32's digits, and make the same errors."""
    single = Problem(tiny.model, tiny.loss_fn, (tiny.x, tiny.y), dtype=torch.float32)
    times, start = [0.0, 1e-4], single.theta0.double()
    right = solve(GradientFlow(tiny), times, theta0=start, rtol=1e-12, engine="scipy", method="DOP853")
    found = solve(GradientFlow(single), times, engine=engine, method="RK8", step=1e-6)
    error = float(np.linalg.norm(found["theta"][-1] - right["theta"][-1]))
    assert error / 3 < float(found["solver_error"][-1]) < 30 * error
    assert "rounding" in (solve_info(found).check or "")
