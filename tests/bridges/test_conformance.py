"""Every method of every engine is right, on equations with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from bridges import EngineError, OdeProblem
from tests.bridges.equations import (
    ADAPTIVE,
    RATES,
    Y0,
    adaptive_methods,
    decay,
    engine_called,
    every_method,
    fixed_step,
    oscillator,
    parametrised,
    properties,
    solve,
)


@every_method
def test_linear_decay_at_every_sample(engine: str, method: str) -> None:
    times = np.linspace(0, 3, 17)
    states, solution = solve(engine, method, decay, Y0, times, rtol=1e-7, atol=1e-10)
    assert solution.status == "success"
    assert solution.time >= 3
    np.testing.assert_allclose(states, Y0 * np.exp(-np.outer(times, RATES)), rtol=0, atol=3e-5)


@adaptive_methods
def test_error_falls_with_the_tolerance(engine: str, method: str) -> None:
    """But for TRBDF2 of Julia, whose global error does not follow its tolerance, with a dense LU neither."""
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        states, _ = solve(
            engine, method, oscillator, [0.0, 1.0], [0.0, 2.5, 5.0], rtol=rtol, atol=rtol * 1e-2
        )
        errors.append(np.linalg.norm(states[-1] - [np.sin(5.0), np.cos(5.0)]))
    assert errors[2] < 1e-5
    if (engine, method) != ("diffeq", "TRBDF2"):
        assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize("method", ["BDF", "DOP853"])
def test_a_stiff_equation_is_solved(method: str) -> None:
    def stiff(t, y, dy):  # Prothero and Robinson: y = cos t, with a fast decay towards it
        dy[:] = -1e3 * (y - np.cos(t)) - np.sin(t)

    engine = "sundials" if method == "BDF" else "scipy"
    states, solution = solve(engine, method, stiff, [1.0], [0.0, 5.0, 10.0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(states[:, 0], np.cos([0.0, 5.0, 10.0]), atol=1e-4)
    if method == "BDF":  # stability does not bound its step: an explicit method needs thousands
        assert solution.statistics.rhs_evaluations < 1500


@every_method
def test_samples_cost_no_stored_state_and_come_in_order(engine: str, method: str) -> None:
    seen: list[int] = []
    arrays: set[int] = set()

    def look(index, t, y):
        seen.append(index)
        arrays.add(id(y))

    problem = OdeProblem(decay, Y0, np.linspace(0, 1, 400), step=fixed_step(engine, method))
    engine_called(engine).solve(problem, method, look)
    assert seen == list(range(400))


@every_method
def test_many_samples_inside_one_step_are_accurate(engine: str, method: str) -> None:
    times = np.linspace(0, 2, 1001)
    states, _ = solve(engine, method, decay, Y0, times, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(states, Y0 * np.exp(-np.outer(times, RATES)), atol=3e-5)


@every_method
def test_a_single_time_is_the_start(engine: str, method: str) -> None:
    states, solution = solve(engine, method, decay, Y0, [2.0])
    np.testing.assert_array_equal(states, [Y0])
    assert solution.status == "success"
    assert solution.statistics.rhs_evaluations == 0


@every_method
def test_time_dependence_and_a_start_that_is_not_zero(engine: str, method: str) -> None:
    def rhs(t, y, dy):
        dy[:] = t

    states, _ = solve(engine, method, rhs, [0.0], [1.0, 2.0], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(states[-1], 1.5, atol=1e-5)


@every_method
def test_every_right_hand_side_is_counted(engine: str, method: str) -> None:
    calls = []

    def rhs(t, y, dy):
        calls.append(t)
        decay(t, y, dy)

    _, solution = solve(engine, method, rhs, Y0, [0.0, 1.0, 2.0])
    statistics = solution.statistics
    assert statistics.rhs_evaluations == len(calls)
    assert 0 < statistics.steps < len(calls)
    assert statistics.wall_seconds > 0


@parametrised([pair for pair in ADAPTIVE if pair[0] != "diffeq" or pair[1] in ("Tsit5", "Vern7", "FBDF")])
def test_rejected_steps_are_counted(engine: str, method: str) -> None:
    def sudden(t, y, dy):  # quiet, then fast: steps that have grown must be taken back
        dy[:] = -y if t < 10 else -200 * (y - np.sin(20 * t))

    _, solution = solve(engine, method, sudden, [1.0], [0.0, 12.0])
    assert solution.status == "success"
    assert 0 < solution.statistics.rejected_steps < solution.statistics.rhs_evaluations
    _, calm = solve(engine, method, oscillator, [0.0, 1.0], [0.0, 0.5], rtol=1e-3, atol=1e-3)
    assert calm.statistics.rejected_steps == 0


@parametrised([("sundials", "BDF"), ("scipy", "DOP853"), ("stand-in", "Vern9"), ("diffeq", "Vern9")])
def test_a_longest_step_is_kept_to(engine: str, method: str) -> None:
    times: list[float] = []

    def watched(t, y, dy):
        times.append(t)
        decay(t, y, dy)

    solve(engine, method, watched, Y0, [0.0, 1.0], rtol=1e-3, max_step=0.01)
    assert max(np.diff(np.unique(times))) <= 0.01 * (1 + 1e-9)


@adaptive_methods
def test_an_absolute_tolerance_for_each_entry(engine: str, method: str) -> None:
    """Two decays side by side, one a millionth of the other: the small one is as accurate if its tolerance is."""

    def pair(t, y, dy):
        dy[:] = -RATES[0] * y * (1 + np.sin(t))

    y0, times = np.array([1.0, 1e-6]), np.linspace(0, 3, 5)
    atol = 1e-9 * y0
    states, _ = solve(engine, method, pair, y0, times, rtol=1e-7, atol=atol)
    # An iterative solver of the linear systems stops at a residual of both together.
    alike = 1e-8 if properties(engine, method).kind == "implicit" else 1e-12
    np.testing.assert_allclose(states[:, 1] / 1e-6, states[:, 0], rtol=alike)
    with pytest.raises(EngineError, match=r"atol has shape \(3,\); the state has \(2,\)"):
        solve(engine, method, pair, y0, times, atol=np.ones(3))
    with pytest.raises(EngineError, match="atol must be positive numbers"):
        solve(engine, method, pair, y0, times, atol=np.zeros(2))
