"""Jacobian products of implicit methods: never left to the library, counted and limited."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bridges import OdeProblem
from tests.bridges.equations import (
    METHODS,
    Y0,
    decay,
    engine_called,
    oscillator,
    parametrised,
    properties,
    solve,
)

of_implicit = parametrised([pair for pair in METHODS if properties(*pair).jvp])
of_stabilised = parametrised([pair for pair in METHODS if properties(*pair).sharpness])


def turned(t, y, v, out):
    """The oscillator's Jacobian times v."""
    out[0], out[1] = v[1], -v[0]


def error_and_solution(engine: str, method: str, **options):
    states, solution = solve(
        engine, method, oscillator, [0.0, 1.0], [0.0, 5.0], rtol=1e-8, atol=1e-10, **options
    )
    assert solution.status == "success"
    return np.linalg.norm(states[-1] - [np.sin(5.0), np.cos(5.0)]), solution


@of_implicit
def test_differences_are_as_good_as_the_exact_product(engine: str, method: str) -> None:
    """Rodas5P took 141 922 right-hand sides for 1.2e-9 here with the library's own quotient, which does not scale."""
    exact, by_product = error_and_solution(engine, method, jvp=turned)
    difference, by_differences = error_and_solution(engine, method)
    assert difference < 2 * exact + 1e-10
    spent = by_differences.statistics.rhs_evaluations
    product = by_product.statistics
    assert spent < 1.5 * (product.rhs_evaluations + product.jvp_evaluations) + 20
    assert by_differences.statistics.jvp_evaluations == 0


@parametrised([("stand-in", "Rodas5P"), ("diffeq", "Rodas5P")])
def test_a_bad_product_costs_a_method_its_order(engine: str, method: str) -> None:
    """What is wrong without a product of our own is seen: a quotient whose step shrinks with the direction."""

    def unscaled(t, y, v, out):
        step, at_y, moved = 1.5e-8, np.empty(2), np.empty(2)
        oscillator(t, y, at_y)
        oscillator(t, y + step * v, moved)
        out[:] = (moved - at_y) / step

    _, good = error_and_solution(engine, method)
    most = 10 * good.statistics.rhs_evaluations
    times, tolerances = [0.0, 5.0], {"rtol": 1e-8, "atol": 1e-10}
    _, bad = solve(engine, method, oscillator, [0.0, 1.0], times, jvp=unscaled, max_rhs=most, **tolerances)
    assert bad.status == "max_rhs"


@of_implicit
def test_products_are_counted_and_timed(engine: str, method: str) -> None:
    calls: list[float] = []

    def product(t, y, v, out):
        calls.append(t)
        time.sleep(1e-3)
        turned(t, y, v, out)

    _, solution = error_and_solution(engine, method, jvp=product)
    statistics = solution.statistics
    assert statistics.jvp_evaluations == len(calls) > 0
    assert statistics.jvp_seconds >= 1e-3 * len(calls)
    assert 0 < statistics.rhs_seconds < statistics.wall_seconds
    assert statistics.probe_evaluations == 0


@of_implicit
def test_a_limit_holds_for_right_hand_sides_and_products_together(engine: str, method: str) -> None:
    calls: list[str] = []

    def product(t, y, v, out):
        calls.append("product")
        turned(t, y, v, out)

    def rhs(t, y, dy):
        calls.append("rhs")
        oscillator(t, y, dy)

    states, solution = solve(
        engine, method, rhs, [0.0, 1.0], np.linspace(0, 500, 1000), jvp=product, max_rhs=25
    )
    assert solution.status == "max_rhs"
    assert "25 right-hand sides and Jacobian products" in solution.message
    assert len(calls) == 25
    assert solution.statistics.rhs_evaluations == calls.count("rhs")
    assert solution.statistics.jvp_evaluations == calls.count("product") > 0
    assert 1 <= len(states) < 1000


@of_implicit
def test_a_limit_on_time_holds_for_products(engine: str, method: str) -> None:
    def slow(t, y, v, out):
        time.sleep(0.05)
        turned(t, y, v, out)

    _, solution = solve(engine, method, oscillator, [0.0, 1.0], [0.0, 500.0], jvp=slow, max_seconds=0.1)
    assert solution.status == "max_seconds"
    assert solution.statistics.jvp_evaluations <= 4


@of_implicit
def test_a_product_that_is_not_finite_stops_the_solve(engine: str, method: str) -> None:
    def broken(t, y, v, out):
        out[:] = np.nan

    _, solution = solve(engine, method, oscillator, [0.0, 1.0], [0.0, 5.0], jvp=broken)
    assert solution.status == "non_finite"
    assert "Jacobian product" in solution.message


@of_implicit
def test_what_a_product_raises_comes_out_as_itself(engine: str, method: str) -> None:
    mine = ZeroDivisionError("mine")

    def broken(t, y, v, out):
        raise mine

    problem = OdeProblem(oscillator, np.array([0.0, 1.0]), np.array([0.0, 5.0]), jvp=broken)
    with pytest.raises(ZeroDivisionError) as caught:
        engine_called(engine).solve(problem, method, lambda index, t, y: None)
    assert caught.value is mine
    assert mine.ode_solution.statistics.jvp_evaluations == 1


@of_stabilised
def test_what_the_sharpness_takes_is_counted_apart_and_limited(engine: str, method: str) -> None:
    calls: list[float] = []

    def rhs(t, y, dy):
        calls.append(t)
        decay(t, y, dy)

    def sharpness(t, y, field):
        out = np.empty_like(y)
        for _ in range(5):
            field(t, 0.9 * y, out)  # near by: of y itself an engine may know the field already
        return 2.0

    _, whole = solve(engine, method, rhs, Y0, [0.0, 1.0], sharpness=sharpness)
    statistics = whole.statistics
    assert whole.status == "success"
    assert statistics.probe_evaluations > 0
    assert statistics.probe_evaluations % 5 == 0
    assert statistics.rhs_evaluations + statistics.probe_evaluations == len(calls)
    calls.clear()
    _, cut = solve(engine, method, rhs, Y0, np.linspace(0, 500, 200), sharpness=sharpness, max_rhs=13)
    assert cut.status == "max_rhs"
    assert "right-hand sides and probes" in cut.message
    assert len(calls) == 13


@of_stabilised
@pytest.mark.parametrize("radius", [np.nan, np.inf])
def test_a_sharpness_that_is_not_finite_stops_the_solve(engine: str, method: str, radius: float) -> None:
    _, solution = solve(engine, method, decay, Y0, [0.0, 1.0], sharpness=lambda t, y, field: radius)
    assert solution.status == "non_finite"
    assert "spectral radius" in solution.message


@of_stabilised
def test_the_sharpness_is_of_the_state_that_a_step_starts_from(engine: str, method: str) -> None:
    """Also where the step before it was rejected, whose state may be anything."""
    states: dict[float, list[np.ndarray]] = {}

    def follow(t, y, dy):  # a jump in a smooth field, from which steps that have grown are rejected
        dy[:] = 20 * (np.tanh(200 * (t - 1)) - y)

    def sharpness(t, y, field):
        states.setdefault(t, []).append(y.copy())
        return 25.0

    _, solution = solve(engine, method, follow, [-1.0], [0.0, 2.0], rtol=1e-6, atol=1e-8, sharpness=sharpness)
    assert solution.status == "success"
    assert engine == "stand-in" or solution.statistics.rejected_steps > 0
    for first, *others in states.values():
        for other in others:
            np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("origin", [0.0, 100.0])
def test_the_sharpness_is_asked_for_at_the_callers_time(origin: float) -> None:
    seen: list[tuple[float, float]] = []

    def rhs(t, y, dy):
        seen.append((t, 0.0))
        decay(t, y, dy)

    asked: list[float] = []

    def sharpness(t, y, field):
        asked.append(t)
        before = len(seen)
        field(t, y, np.empty_like(y))
        assert seen[before][0] == pytest.approx(t)
        return 2.0

    solve("stand-in", "ROCK4", rhs, Y0, [origin, origin + 1.0], sharpness=sharpness)
    assert asked
    assert all(origin <= t <= origin + 1 for t in asked)
