"""Methods with a fixed step: their order, their own error estimate, and fields that jump."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bridges.equations import METHODS, RATES, Y0, decay, oscillator, properties, solve

WITH_JUMPS = [
    ("scipy", "Midpoint"),
    ("scipy", "RK8"),
    ("torch", "Midpoint"),
    ("torch", "RK8"),
    ("toy", "RK4"),
]


def observed_order(steps, errors) -> float:
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def test_midpoint_is_of_second_order_and_its_estimate_says_how_far_it_is() -> None:
    steps, errors = (0.2, 0.1, 0.05), []
    for step in steps:
        times = [0.0, 1.0, 5.0]
        states, solution = solve("scipy", "Midpoint", oscillator, [0.0, 1.0], times, step=step)
        exact = np.array([[np.sin(t), np.cos(t)] for t in times])
        error = np.linalg.norm(states - exact, axis=1)
        # The coarse solution is four times as wrong as the fine one: the estimate is three times its error.
        np.testing.assert_allclose(solution.error_estimates[1:], 3 * error[1:], rtol=0.05)
        assert solution.error_estimates[0] == 0
        errors.append(error[-1])
    assert abs(observed_order(steps, errors) - 2) < 0.05


def test_midpoint_hits_samples_that_are_no_multiples_of_the_step() -> None:
    times = [0.0, 0.013, 0.5, 0.5000001, 1.7]
    states, solution = solve("scipy", "Midpoint", decay, Y0, times, step=0.1)
    np.testing.assert_allclose(states, Y0 * np.exp(-np.outer(times, RATES)), atol=2e-3)
    assert solution.statistics.steps == 1 + 5 + 1 + 12
    assert solution.statistics.rhs_evaluations == 6 * solution.statistics.steps


@pytest.mark.parametrize(("engine", "method"), WITH_JUMPS)
def test_fixed_steps_have_their_order_and_their_error_estimate(engine: str, method: str) -> None:
    order = properties(engine, method).order
    steps = [2.0, 1.0, 0.5] if method == "RK8" else [0.1, 0.05, 0.025]
    errors = []
    for step in steps:
        states, solution = solve(engine, method, oscillator, [1.0, 0.0], [0.0, 2.0], step=step)
        errors.append(np.linalg.norm(states[-1] - [np.cos(2.0), -np.sin(2.0)]))
        # Coarse minus fine: (2^order − 1) times the error of the fine one.
        assert 0.5 < solution.error_estimates[-1] / ((2**order - 1) * errors[-1]) < 2
    assert abs(observed_order(steps, errors) - order) < 0.15


def test_every_method_that_says_so_can_jump() -> None:
    assert [pair for pair in METHODS if properties(*pair).jumps] == WITH_JUMPS


@pytest.mark.parametrize(("engine", "method"), WITH_JUMPS)
def test_a_field_that_jumps_is_one_field_from_start_to_end_of_every_step(engine: str, method: str) -> None:
    """y' = rate_k y during piece k; samples are at some jumps and between others, and no step crosses one."""
    rates, jumps, now = np.array([1.0, -3.0, 2.0, 0.5]), np.array([0.0, 0.3, 0.5, 0.9]), [np.nan]

    def restart(k: int) -> None:
        now[0] = rates[k]

    def field(t, y, dy):
        dy[:] = now[0] * y

    times = [0.0, 0.1, 0.3, 0.7, 1.2]
    options = {"step": 1e-3 if method == "Midpoint" else 0.05, "restarts": jumps, "on_restart": restart}
    states, solution = solve(engine, method, field, [1.0], times, **options)
    held = np.clip(np.array(times)[:, None] - jumps, 0, np.append(np.diff(jumps), np.inf))
    rtol = 1e-10 if method == "RK8" else 1e-6
    np.testing.assert_allclose(states[:, 0], np.exp(held @ rates), rtol=rtol)
    assert solution.status == "success"
