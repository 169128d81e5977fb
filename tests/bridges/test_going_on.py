"""A solve goes on from a place that an earlier one came to: every method of every engine that can."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from bridges import Kept, OdeProblem
from tests.bridges.equations import (
    METHODS,
    RATES,
    Y0,
    decay,
    engine_called,
    every_method,
    fixed_step,
    parametrised,
)

TIMES = np.array([0.0, 0.4, 1.1, 2.0, 3.0])
JUMPS = [pair for pair in METHODS if engine_called(pair[0]).methods[pair[1]].jumps]


def copied(place: Kept) -> Kept:
    memory = {name: values.copy() for name, values in place.memory.items()}
    return replace(place, y=np.array(place.y), memory=memory)


def solved(engine: str, method: str, problem: OdeProblem):
    """Samples by number, the solution, and every place that it came by."""
    samples: dict[int, np.ndarray] = {}
    places: list[Kept] = []
    watched = replace(problem, on_step=lambda place: places.append(copied(place())))
    solution = engine_called(engine).solve(watched, method, lambda i, t, y: samples.update({i: y.copy()}))
    return samples, solution, places


@every_method
def test_it_ends_where_it_would_have_ended(engine: str, method: str) -> None:
    problem = OdeProblem(decay, Y0, TIMES, rtol=1e-7, atol=1e-10, step=fixed_step(engine, method))
    whole, ending, places = solved(engine, method, problem)
    assert sorted(whole) == [0, 1, 2, 3, 4]
    last = places[-1]
    assert last.samples == 5
    for place in (places[0], places[len(places) // 3], places[-2], last):
        samples, solution, _ = solved(engine, method, replace(problem, kept=place))
        assert sorted(samples) == list(range(place.samples, 5))
        assert solution.status == "success"
        assert solution.samples == 5
        assert solution.statistics.rhs_evaluations >= place.statistics.rhs_evaluations
        assert solution.statistics.wall_seconds >= place.statistics.wall_seconds
        for i, y in samples.items():
            np.testing.assert_allclose(y, Y0 * np.exp(-RATES * TIMES[i]), atol=3e-5)
            if last.memory:
                np.testing.assert_array_equal(y, whole[i])
        if last.memory:
            # Whether a check took other steps is read off these.
            assert solution.statistics.steps == ending.statistics.steps
            assert solution.statistics.rhs_evaluations == ending.statistics.rhs_evaluations
        if ending.error_estimates is not None:
            assert solution.error_estimates is not None
            np.testing.assert_array_equal(solution.error_estimates, ending.error_estimates)


@parametrised(JUMPS)
def test_the_piece_in_force_is_entered_again(engine: str, method: str) -> None:
    force = [0.0]

    def pushed(t, y, dy):
        dy[:] = force[0] - y

    problem = OdeProblem(
        pushed,
        np.ones(2),
        np.array([0.0, 1.0, 3.0]),
        step=0.06,
        restarts=np.array([0.0, 0.5, 1.0, 2.5]),
        on_restart=lambda piece: force.__setitem__(0, [1.0, -2.0, 3.0, 7.0][piece]),
    )
    whole, _, places = solved(engine, method, problem)
    for place in places[:-1:3]:
        force[0] = np.nan
        samples, _, _ = solved(engine, method, replace(problem, kept=place))
        np.testing.assert_array_equal(samples[2], whole[2])


def test_limits_are_those_of_the_whole_solve() -> None:
    problem = OdeProblem(decay, Y0, TIMES, max_rhs=100)
    whole, ending, places = solved("scipy", "DOP853", replace(problem, rtol=1e-9, atol=1e-12))
    assert ending.status == "max_rhs"
    _, again, _ = solved("scipy", "DOP853", replace(problem, rtol=1e-9, atol=1e-12, kept=places[-1]))
    assert again.status == "max_rhs"
    assert again.statistics.rhs_evaluations == 100
    longer = replace(problem, rtol=1e-9, atol=1e-12, kept=places[-1], max_rhs=10_000)
    samples, success, _ = solved("scipy", "DOP853", longer)
    assert success.status == "success"
    np.testing.assert_allclose({**whole, **samples}[4], Y0 * np.exp(-RATES * 3.0), atol=1e-8)


def test_an_engine_that_asks_its_steppers_for_a_time_alone_goes_on_too() -> None:
    pytest.importorskip("sksundae")
    problem = OdeProblem(decay, Y0, TIMES, rtol=1e-9, atol=1e-12)
    _, _, places = solved("sundials", "BDF", problem)
    assert not places[0].memory
    samples, _, _ = solved("sundials", "BDF", replace(problem, kept=places[len(places) // 2]))
    np.testing.assert_allclose(samples[4], Y0 * np.exp(-RATES * 3.0), atol=1e-7)


@every_method
def test_a_solve_that_is_done_holds_nothing(engine: str, method: str) -> None:
    """A check is a second solve: the vectors of the first would lie beside its own until they are collected."""

    class Field:
        def __call__(self, t, y, dy) -> None:
            decay(t, y, dy)

    field = Field()
    held = weakref.ref(field)
    gc.collect()
    gc.disable()
    try:
        problem = OdeProblem(field, Y0, TIMES[:2], step=fixed_step(engine, method))
        engine_called(engine).solve(problem, method, lambda i, t, y: None)
        del problem, field
        assert held() is None
    finally:
        gc.enable()
