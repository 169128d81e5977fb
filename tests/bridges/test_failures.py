"""Every method of every engine stops where it must, says why, and keeps what was done."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from bridges import OdeProblem
from tests.bridges.equations import (
    RATES,
    Y0,
    adaptive_methods,
    decay,
    engine_called,
    every_method,
    fixed_step,
    oscillator,
    solve,
)


class Broken(Exception):  # noqa: N818
    pass


@every_method
@pytest.mark.parametrize("where", ["rhs", "sample"])
def test_an_exception_comes_out_as_itself_with_the_solution_so_far(
    engine: str, method: str, where: str
) -> None:
    mine = Broken("mine")

    def rhs(t, y, dy):
        if where == "rhs" and t > 1.5:
            raise mine
        decay(t, y, dy)

    kept = []

    def keep(index, t, y):
        if where == "sample" and t > 1.5:
            raise mine
        kept.append(t)

    problem = OdeProblem(rhs, Y0, np.array([0.0, 1.0, 2.0, 3.0]), step=fixed_step(engine, method))
    with pytest.raises(Broken) as caught:
        engine_called(engine).solve(problem, method, keep)
    assert caught.value is mine
    solution = mine.ode_solution
    assert solution.samples == len(kept)
    assert solution.statistics.rhs_evaluations > 0
    assert "Broken was raised" in solution.message
    # The next solve is right.
    states, after = solve(engine, method, decay, Y0, [0.0, 1.0], rtol=1e-7, atol=1e-10)
    assert after.status == "success"
    np.testing.assert_allclose(states[-1], Y0 * np.exp(-RATES), atol=3e-5)


@every_method
@pytest.mark.usefixtures("python_sigint")
def test_ctrl_c_comes_out_as_itself(engine: str, method: str) -> None:
    def rhs(t, y, dy):
        decay(t, y, dy)
        if t > 0.5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        solve(engine, method, rhs, Y0, [0.0, 0.1, 2.0])
    assert caught.value.ode_solution.samples >= 1


@every_method
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_field_that_is_not_finite_stops_the_solve(engine: str, method: str, value: float) -> None:
    def rhs(t, y, dy):
        decay(t, y, dy)
        if t > 1.5:
            dy[1] = value

    states, solution = solve(engine, method, rhs, Y0, [0.0, 0.5, 1.0, 2.0, 3.0])
    assert solution.status == "non_finite"
    assert "not finite at t = " in solution.message
    assert 1 <= len(states) < 4
    assert np.isfinite(states).all()


@every_method
def test_limit_on_right_hand_sides(engine: str, method: str) -> None:
    calls = []

    def rhs(t, y, dy):
        calls.append(t)
        decay(t, y, dy)

    states, solution = solve(engine, method, rhs, Y0, np.linspace(0, 500, 1000), max_rhs=25)
    assert solution.status == "max_rhs"
    assert "25 right-hand sides" in solution.message
    assert len(calls) == solution.statistics.rhs_evaluations == 25
    assert 1 <= len(states) < 1000


@every_method
def test_limit_on_steps(engine: str, method: str) -> None:
    step = None if fixed_step(engine, method) is None else 0.05
    _, solution = solve(engine, method, oscillator, [0.0, 1.0], [0.0, 500.0], max_steps=7, step=step)
    assert solution.status == "max_steps"
    assert "the limit of 7 steps was reached at t = " in solution.message
    assert solution.statistics.steps <= 8
    assert 0 < solution.time < 500


@every_method
def test_limit_on_wall_time(engine: str, method: str) -> None:

    def slow(t, y, dy):
        time.sleep(0.02)
        decay(t, y, dy)

    _, solution = solve(engine, method, slow, Y0, [0.0, 100.0], max_seconds=0.1)
    assert solution.status == "max_seconds"
    assert solution.statistics.rhs_evaluations <= 6
    assert solution.time < 100


@adaptive_methods
def test_a_solution_that_becomes_infinite_is_a_failure_not_a_result(engine: str, method: str) -> None:
    def blow_up(t, y, dy):  # y = 1/(1 − t)
        with np.errstate(over="ignore"):
            dy[:] = y * y

    _, solution = solve(engine, method, blow_up, [1.0], [0.0, 2.0], max_rhs=200_000)
    assert solution.status in ("step_failure", "non_finite")
    assert solution.time < 1.01


@adaptive_methods
def test_a_field_no_step_is_small_enough_for_ends(engine: str, method: str) -> None:
    generator = np.random.default_rng(0)

    def noise(t, y, dy):
        dy[:] = 1e9 * generator.standard_normal(y.size)

    _, solution = solve(engine, method, noise, Y0, [0.0, 1.0], max_rhs=20_000)
    assert solution.status != "success"
