"""Options that do not fit together are refused before anything is computed, with what to do instead."""

from __future__ import annotations

import numpy as np
import pytest

from bridges import (
    EngineError,
    OdeProblem,
    UnknownEngineError,
    UnknownMethodError,
    get_engine,
    require_fit,
    require_jumps,
    require_options,
    require_ready,
    resolve_method,
)
from bridges.julia.engine import using_backend
from tests.bridges.equations import (
    ADAPTIVE,
    METHODS,
    NO_JULIA,
    RATES,
    Y0,
    decay,
    engine_called,
    properties,
    solve,
)
from tests.bridges.jobs import STAND_IN
from tests.bridges.toy_engine import toy_registered

every_pair = pytest.mark.parametrize(("engine", "method"), METHODS)  # nothing is started


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


@every_pair
def test_a_step_goes_with_a_method_that_takes_one(engine: str, method: str) -> None:
    """By the method's own word; refused before Julia is asked for."""
    use = properties(engine, method).step

    def options(step: float | None) -> None:
        problem = OdeProblem(decay, Y0, np.array([0.0, 1.0]), step=step)
        require_fit(engine_called(engine), problem, method)
        resolve_method(engine_called(engine), method, step)

    if use == "required":
        with pytest.raises(EngineError, match="fixed step: give `step`"):
            options(None)
    else:
        options(None)
    if use == "none":
        with pytest.raises(EngineError, match="chooses its own steps"):
            options(0.1)
    else:
        options(0.1)


@every_pair
def test_an_engine_asks_before_it_solves(engine: str, method: str) -> None:
    """Each engine's own `solve` refuses what `require_fit` refuses."""
    wrong = 0.1 if properties(engine, method).step == "none" else None
    if wrong is None and properties(engine, method).step == "optional":
        pytest.skip("goes with a step and without")
    problem = OdeProblem(decay, Y0, np.array([0.0, 1.0]), step=wrong)
    with pytest.raises(EngineError, match="step"):
        engine_called(engine).solve(problem, method, lambda i, t, y: None)


@pytest.mark.parametrize(
    ("engine", "method", "step", "sentence"),
    [
        ("auto", "BDF", None, "method goes with a named engine"),
        ("auto", None, 0.1, "step goes with a named engine"),
        ("sundial", None, None, r"did you mean 'sundials'"),
        ("scipy", "bdf", None, "no method 'bdf'"),
        ("sundials", None, 0.1, "step goes with engine 'scipy' and method 'Midpoint' or 'RK8'"),
        ("sundials", "BDF", 0.1, "step goes with engine 'scipy' and method 'Midpoint' or 'RK8'"),
        ("scipy", "RK23", 0.1, "step goes with engine 'scipy' and method 'Midpoint' or 'RK8'"),
        ("diffeq", None, 0.1, "step goes with an explicit method of engine 'diffeq', such as 'RK4'"),
        ("diffeq", "FBDF", 0.1, "step goes with an explicit method of engine 'diffeq', such as 'RK4'"),
        ("diffeq", "Euler", None, "'Euler' has a fixed step: give `step`"),
        ("toy", None, None, "every method of engine 'toy' has a fixed step"),
        ("toy", "RK4", None, "'RK4' has a fixed step"),
    ],
)
def test_options_that_do_not_fit_are_refused(engine: str, method, step, sentence: str) -> None:
    with toy_registered(), pytest.raises(EngineError, match=sentence):
        require_options(engine, method, step)


@pytest.mark.parametrize(
    ("engine", "method", "step", "resolved"),
    [
        ("scipy", None, None, "DOP853"),
        ("scipy", "auto", None, "DOP853"),
        ("scipy", None, 0.1, "Midpoint"),
        ("scipy", "RK8", 0.1, "RK8"),
        ("sundials", None, None, "BDF"),
        ("diffeq", "auto", None, "Tsit5"),
        ("diffeq", "Vern9", 0.1, "Vern9"),
        ("toy", None, 0.1, "RK4"),
    ],
)
def test_the_method_that_is_taken(engine: str, method, step, resolved: str) -> None:
    with toy_registered():
        require_options(engine, method, step)
        assert resolve_method(get_engine(engine), method, step) == resolved
    require_options("auto", None, None)


def test_an_explicit_method_of_julia_takes_a_step() -> None:
    states, _ = solve("stand-in", "Vern9", decay, Y0, [0.0, 0.5, 1.0], step=0.05)
    np.testing.assert_allclose(states[-1], Y0 * np.exp(-RATES), rtol=1e-5)


@pytest.mark.parametrize(("engine", "method"), ADAPTIVE)
def test_adaptive_methods_refuse_a_field_that_jumps(engine: str, method: str) -> None:
    fixed = "and method 'Midpoint' or 'RK8' with a step, or"
    remedy = f"engine 'scipy' {fixed} engine 'torch' {fixed} 'auto'"
    with pytest.raises(EngineError, match=f"steps across the times at which this field jumps: take {remedy}"):
        solve(engine, method, decay, Y0, [0.0, 1.0], restarts=np.array([0.5]))


def test_an_engine_that_would_cross_jumps_is_refused_before_anything_is_built() -> None:
    for engine, method, step in (
        ("auto", None, None),
        ("scipy", "RK8", 0.1),
        ("scipy", None, 0.1),
        ("toy", "RK4", 0.1),
    ):
        with toy_registered():
            require_jumps(engine, method, step)
    for engine, method, step in (("scipy", None, None), ("sundials", "BDF", None), ("diffeq", "RK4", 0.1)):
        with pytest.raises(EngineError, match="steps across the times at which this field jumps"):
            require_jumps(engine, method, step)
    with pytest.raises(EngineError, match="fixed step: give `step`"):
        require_jumps("scipy", "RK8", None)


def test_an_engine_that_is_ready_or_not() -> None:
    for engine in ("auto", "scipy", "sundials"):
        require_ready(engine)
    with using_backend(STAND_IN):
        require_ready("diffeq")


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(
        UnknownEngineError, match=r"'sundial'; did you mean 'sundials'\? Known: diffeq, scipy, sundials"
    ):
        get_engine("sundial")
    with pytest.raises(UnknownMethodError, match=r"no method 'dop583'; did you mean 'DOP853'\?"):
        solve("scipy", "dop583", decay, Y0, [0.0, 1.0])


@pytest.mark.skipif(not NO_JULIA, reason="there is a Julia here")
def test_without_julia_the_remedy_is_one_line() -> None:
    with pytest.raises(
        EngineError, match=r"engine 'diffeq' cannot start: .*; run `nm-ode bridge install` \(about"
    ):
        solve("diffeq", "Vern9", decay, Y0, [0.0, 1.0])


@pytest.mark.parametrize(
    "options",
    [
        {"rtol": np.float32(1e-3)},
        {"atol": np.float32(1e-3)},
        {"step": np.float32(0.25)},
        {"max_step": np.float32(0.25)},
        {"max_steps": np.int64(1000)},
        {"step": 1},
    ],
    ids=str,
)
def test_numpys_numbers_reach_the_worker(options) -> None:
    samples, solution = solve("stand-in", "DP5", decay, Y0, [0.0, 1.0], **options)
    assert solution.status == "success"
    np.testing.assert_allclose(samples[-1], np.exp(-RATES) * Y0, atol=0.2)


@pytest.mark.parametrize("options", [{"rtol": np.float32(1e-6)}, {"step": np.float32(0.25)}], ids=str)
def test_numpys_numbers_reach_the_worker_with_a_law(options) -> None:
    one = np.ones((1, 1))
    law = {"order": 1, "m": one, "b": one, "kappa": np.ones(1), "force": one, "y0": np.array([2.0])}
    tolerances = {"rtol": 1e-6, "atol": np.float32(1e-6)} | options
    engine = engine_called("stand-in")
    solved = engine.solve_laws(**law, times=np.array([0.0, 1.0]), method="Vern7", **tolerances)
    np.testing.assert_allclose(solved.charges[-1], 1 + np.exp(-1), rtol=1e-3)
