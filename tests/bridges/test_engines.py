"""One conformance suite: every method of every engine, on equations with known answers."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from bridges import (
    EngineError,
    OdeProblem,
    OdeSolution,
    UnknownEngineError,
    UnknownMethodError,
    engine_names,
    get_engine,
)
from bridges.julia.engine import DiffeqEngine
from bridges.julia.installing import installation
from nm_ode import observed_order

FIXED_STEP = ["Midpoint", "RK8", "RK4", "Euler", "Heun"]
NO_JULIA = installation().lacks
needs_julia = [pytest.mark.julia, pytest.mark.skipif(bool(NO_JULIA), reason=f"no Julia: {NO_JULIA}")]
EMBEDDED = [(name, method) for name in ("scipy", "sundials") for method in get_engine(name).methods]
STAND_IN = [("stand-in", method) for method in ("Vern9", "DP5", "FBDF", "ROCK4", "RK4")]
DIFFEQ = [("diffeq", method) for method in get_engine("diffeq").methods]
METHODS = [*EMBEDDED, *STAND_IN, *DIFFEQ]
ADAPTIVE = [pair for pair in METHODS if pair[1] not in FIXED_STEP]


def parametrised(pairs):
    marked = [pytest.param(*pair, marks=needs_julia if pair[0] == "diffeq" else ()) for pair in pairs]
    return pytest.mark.parametrize(("engine", "method"), marked, ids=lambda value: str(value))


every_method, adaptive_methods = parametrised(METHODS), parametrised(ADAPTIVE)


def engine_called(name: str):
    """The engine; "stand-in" is the Julia engine with SciPy in its worker."""
    return DiffeqEngine("tests.bridges.stand_in:StandIn") if name == "stand-in" else get_engine(name)


RATES = np.array([1.0, 0.3, 2.0])
Y0 = np.array([1.0, -2.0, 0.5])


def decay(t, y, dy):
    dy[:] = -RATES * y


def oscillator(t, y, dy):
    dy[0], dy[1] = y[1], -y[0]


def solve(engine: str, method: str, rhs, y0, times, **options) -> tuple[np.ndarray, OdeSolution]:
    """The samples in a row, and the solution."""
    samples: list[np.ndarray] = []

    def keep(index, t, y):
        assert index == len(samples)
        assert t == times[index]
        samples.append(np.array(y))

    if method in FIXED_STEP:
        options.setdefault("step", {"Midpoint": 0.01, "Heun": 0.01, "Euler": 1e-5}.get(method, 0.05))
    problem = OdeProblem(rhs, np.asarray(y0, float), np.asarray(times, float), **options)
    solution = engine_called(engine).solve(problem, method, keep)
    assert solution.samples == len(samples)
    return np.array(samples), solution


@every_method
def test_linear_decay_at_every_sample(engine: str, method: str) -> None:
    times = np.linspace(0, 3, 17)
    states, solution = solve(engine, method, decay, Y0, times, rtol=1e-7, atol=1e-10)
    assert solution.status == "success"
    assert solution.time >= 3
    np.testing.assert_allclose(states, Y0 * np.exp(-np.outer(times, RATES)), rtol=0, atol=3e-5)


@adaptive_methods
def test_error_falls_with_the_tolerance(engine: str, method: str) -> None:
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        states, _ = solve(
            engine, method, oscillator, [0.0, 1.0], [0.0, 2.5, 5.0], rtol=rtol, atol=rtol * 1e-2
        )
        errors.append(np.linalg.norm(states[-1] - [np.sin(5.0), np.cos(5.0)]))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-5


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
    assert abs(observed_order(steps, errors).order - 2) < 0.05


def test_midpoint_hits_samples_that_are_no_multiples_of_the_step() -> None:
    times = [0.0, 0.013, 0.5, 0.5000001, 1.7]
    states, solution = solve("scipy", "Midpoint", decay, Y0, times, step=0.1)
    np.testing.assert_allclose(states, Y0 * np.exp(-np.outer(times, RATES)), atol=2e-3)
    assert solution.statistics.steps == 1 + 5 + 1 + 12
    assert solution.statistics.rhs_evaluations == 6 * solution.statistics.steps


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

    problem = OdeProblem(decay, Y0, np.linspace(0, 1, 400), step=0.01 if method in FIXED_STEP else None)
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

    problem = OdeProblem(rhs, Y0, np.array([0.0, 1.0, 2.0, 3.0]), step=0.05 if method in FIXED_STEP else None)
    with pytest.raises(Broken) as caught:
        engine_called(engine).solve(problem, method, keep)
    assert caught.value is mine
    solution = mine.ode_solution
    assert solution.samples == len(kept)
    assert solution.statistics.rhs_evaluations > 0
    assert "Broken was raised" in solution.message
    # The engine is not spoilt: the next solve is sound.
    states, after = solve(engine, method, decay, Y0, [0.0, 1.0], rtol=1e-7, atol=1e-10)
    assert after.status == "success"
    np.testing.assert_allclose(states[-1], Y0 * np.exp(-RATES), atol=3e-5)


@every_method
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
    step = {"step": 0.05} if method in FIXED_STEP else {}
    _, solution = solve(engine, method, oscillator, [0.0, 1.0], [0.0, 500.0], max_steps=7, **step)
    assert solution.status == "max_steps"
    assert "the limit of 7 steps was reached at t = " in solution.message
    assert solution.statistics.steps <= 8
    assert 0 < solution.time < 500


@every_method
def test_limit_on_wall_time(engine: str, method: str) -> None:
    import time

    def slow(t, y, dy):
        time.sleep(0.02)
        decay(t, y, dy)

    _, solution = solve(engine, method, slow, Y0, [0.0, 100.0], max_seconds=0.1)
    assert solution.status == "max_seconds"
    assert solution.statistics.wall_seconds < 5


@adaptive_methods
def test_a_solution_that_leaves_the_numbers_is_a_failure_not_a_result(engine: str, method: str) -> None:
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

    _, solution = solve(engine, method, noise, Y0, [0.0, 1.0], max_rhs=100_000)
    assert solution.status != "success"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"times": [0.0, 1.0, 1.0]}, "must increase strictly"),
        ({"times": []}, "non-empty"),
        ({"times": [0.0, np.nan]}, "finite"),
        ({"y0": [np.nan]}, "not finite"),
        ({"y0": []}, "must be a vector"),
        ({"rtol": 0.0}, "rtol must be a positive number; 0.0"),
        ({"atol": -1.0}, "atol must be a positive number"),
        ({"max_steps": 0}, "max_steps must be a positive number; 0"),
        ({"max_rhs": 0}, "max_rhs must be a positive number"),
        ({"restarts": np.array([0.5, 0.5])}, "restarts must increase strictly"),
        ({"step": float("inf")}, "step must be a positive number"),
    ],
)
def test_problems_that_make_no_sense_are_named(options, sentence: str) -> None:
    arguments = {"rhs": decay, "y0": Y0, "times": [0.0, 1.0]} | options
    with pytest.raises(EngineError, match=sentence):
        OdeProblem(**arguments)


def test_a_step_goes_with_a_fixed_step_method_and_with_nothing_else() -> None:
    for engine, method in [*EMBEDDED, ("stand-in", "FBDF"), ("stand-in", "ROCK4")]:
        if method in FIXED_STEP:
            continue
        with pytest.raises(EngineError, match="chooses its own steps"):
            solve(engine, method, decay, Y0, [0.0, 1.0], step=0.1)
    for engine, method in (("scipy", "Midpoint"), ("scipy", "RK8"), ("stand-in", "RK4")):
        with pytest.raises(EngineError, match="fixed step: give `step`"):
            engine_called(engine).solve(
                OdeProblem(decay, Y0, np.array([0.0, 1.0])), method, lambda i, t, y: None
            )


def test_an_explicit_method_of_julia_takes_a_step() -> None:
    states, _ = solve("stand-in", "Vern9", decay, Y0, [0.0, 0.5, 1.0], step=0.05)
    np.testing.assert_allclose(states[-1], Y0 * np.exp(-RATES), rtol=1e-5)


@parametrised([("sundials", "BDF"), ("scipy", "DOP853"), ("stand-in", "Vern9"), ("diffeq", "Vern9")])
def test_a_longest_step_is_kept_to(engine: str, method: str) -> None:
    times: list[float] = []

    def watched(t, y, dy):
        times.append(t)
        decay(t, y, dy)

    solve(engine, method, watched, Y0, [0.0, 1.0], rtol=1e-3, max_step=0.01)
    assert max(np.diff(np.unique(times))) <= 0.01 * (1 + 1e-9)


@pytest.mark.parametrize(("method", "order"), [("Midpoint", 2), ("RK8", 8)])
def test_fixed_steps_have_their_order_and_their_error_estimate(method: str, order: int) -> None:
    steps = [2.0, 1.0, 0.5] if method == "RK8" else [0.1, 0.05, 0.025]
    errors = []
    for step in steps:
        states, solution = solve("scipy", method, oscillator, [1.0, 0.0], [0.0, 2.0], step=step)
        errors.append(np.linalg.norm(states[-1] - [np.cos(2.0), -np.sin(2.0)]))
        # Coarse minus fine: (2^order − 1) times the error of the fine one.
        assert 0.5 < solution.error_estimates[-1] / ((2**order - 1) * errors[-1]) < 2
    assert abs(observed_order(steps, errors).order - order) < 0.15


@pytest.mark.parametrize("method", ["Midpoint", "RK8"])
def test_a_field_that_jumps_is_the_right_one_at_both_ends_of_every_step(method: str) -> None:
    """y' = rate_k y during piece k, with samples that fall on some jumps, between some, and steps across none."""
    rates, jumps, now = np.array([1.0, -3.0, 2.0, 0.5]), np.array([0.0, 0.3, 0.5, 0.9]), [np.nan]

    def restart(k: int) -> None:
        now[0] = rates[k]

    def field(t, y, dy):
        dy[:] = now[0] * y

    times = [0.0, 0.1, 0.3, 0.7, 1.2]
    options = {"step": 0.05 if method == "RK8" else 1e-3, "restarts": jumps, "on_restart": restart}
    states, solution = solve("scipy", method, field, [1.0], times, **options)
    held = np.clip(np.array(times)[:, None] - jumps, 0, np.append(np.diff(jumps), np.inf))
    np.testing.assert_allclose(states[:, 0], np.exp(held @ rates), rtol=1e-10 if method == "RK8" else 1e-6)
    assert solution.status == "success"


@adaptive_methods
def test_adaptive_methods_refuse_a_field_that_jumps(engine: str, method: str) -> None:
    with pytest.raises(EngineError, match="steps across the times at which this field jumps"):
        solve(engine, method, decay, Y0, [0.0, 1.0], restarts=np.array([0.5]))


@adaptive_methods
def test_an_absolute_tolerance_for_each_entry(engine: str, method: str) -> None:
    """Two decays side by side, one a millionth of the other: the small one is as accurate if its tolerance is."""

    def pair(t, y, dy):
        dy[:] = -RATES[0] * y * (1 + np.sin(t))

    y0, times = np.array([1.0, 1e-6]), np.linspace(0, 3, 5)
    atol = 1e-9 * y0
    states, _ = solve(engine, method, pair, y0, times, rtol=1e-7, atol=atol)
    np.testing.assert_allclose(states[:, 1] / 1e-6, states[:, 0], rtol=1e-12)
    with pytest.raises(EngineError, match=r"atol has shape \(3,\); the state has \(2,\)"):
        solve(engine, method, pair, y0, times, atol=np.ones(3))
    with pytest.raises(EngineError, match="atol must be positive numbers"):
        solve(engine, method, pair, y0, times, atol=np.zeros(2))


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(
        UnknownEngineError, match=r"'sundial'; did you mean 'sundials'\? Known: diffeq, scipy, sundials"
    ):
        get_engine("sundial")
    with pytest.raises(UnknownMethodError, match=r"no method 'dop583'; did you mean 'DOP853'\?"):
        solve("scipy", "dop583", decay, Y0, [0.0, 1.0])


def test_engines_say_what_they_are() -> None:
    for name in engine_names():
        engine = get_engine(name)
        assert engine.name == name
        if name != "diffeq" or not NO_JULIA:
            assert any(character.isdigit() for character in engine.version)
    assert "StandIn (SciPy) " in engine_called("stand-in").version


@pytest.mark.skipif(not NO_JULIA, reason="there is a Julia here")
def test_without_julia_the_remedy_is_one_line() -> None:
    with pytest.raises(
        EngineError, match=r"engine 'diffeq' cannot start: .*; run `nm-ode bridge install` \(about"
    ):
        solve("diffeq", "Vern9", decay, Y0, [0.0, 1.0])
