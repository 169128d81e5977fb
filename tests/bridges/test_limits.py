"""The values that engines take: the same sentence for every engine, and before anything is computed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bridges import LIMITS, EngineError, OdeProblem, finest_rtol, require_limits, require_times
from bridges.limits import MOST, MOST_STEPS


def test_values_that_engines_take_are_taken() -> None:
    require_limits(
        rtol=3e-14, atol=1e-100, step=1e-9, max_steps=MOST, max_rhs=np.int64(5), max_seconds=0.1, span=1.0
    )
    require_limits(rtol=np.float32(1e-3), max_steps=2.0, dtype="float32", step=None, atol=1e8)
    require_limits(max_step=0.1, max_steps=10, span=1.0)
    require_limits(step=5.0, span=1.0)  # one step for each sample


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rtol": 1e-15}, "rtol = 1e-15 is below what float64 holds"),
        ({"rtol": 1e-9, "dtype": "float32"}, "rtol = 1e-09 is below what float32 holds: give at least 1e-06"),
        ({"rtol": 1.0}, "rtol = 1: it must be .* below 1"),
        ({"rtol": 10**400}, "rtol must be a positive number; inf"),
        ({"rtol": "1e-3"}, "rtol = '1e-3'"),
        ({"rtol": True}, "rtol = True"),
        ({"atol": 1e-200}, "atol = 1e-200: it must be .* at least 1e-100"),
        ({"max_steps": 10**30}, r"max_steps = 1e\+30: it must be a whole number, .* at most 2\^63 - 1"),
        ({"max_rhs": 1.5}, "max_rhs = 1.5: it must be a whole number"),
        ({"max_rhs": 10**5000}, "max_rhs = inf: it must be a whole number"),
        ({"step": 1e-12, "span": 10.0}, r"step = 1e-12 is too small: .* 1.0e\+13 steps"),
        ({"max_step": 5e-324, "span": 1e300}, "max_step = .* is too small"),
        ({"max_step": 0.1, "max_steps": 5, "span": 1.0}, "5 steps of at most max_step = 0.1 do not reach"),
    ],
)
def test_values_that_no_engine_takes_are_named(values, named: str) -> None:
    with pytest.raises(EngineError, match=named):
        require_limits(**values)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1, -math.inf, math.nan])
def test_every_option_is_positive(name: str, value: float) -> None:
    with pytest.raises(EngineError, match=f"{name} must be a positive number"):
        require_limits(**{name: value})
    with pytest.raises(EngineError, match=f"{name} must be a positive number"):
        OdeProblem(lambda t, y, dy: None, np.ones(1), np.array([0.0, 1.0]), **{name: value})


@pytest.mark.parametrize("name", [name for name, limit in LIMITS.items() if not limit.whole])
def test_every_number_is_finite(name: str) -> None:
    with pytest.raises(EngineError, match=f"{name} must be a positive number; inf"):
        require_limits(**{name: math.inf})


@pytest.mark.parametrize("name", LIMITS)
def test_bounds_for_a_schema_are_those_of_the_check(name: str) -> None:
    """A schema that takes `bounds` admits the ends that the check admits, and nothing else."""
    limit, bounds = LIMITS[name], LIMITS[name].bounds()
    for end in ("ge", "le"):
        if end in bounds:
            require_limits(**{name: bounds[end]})
            with pytest.raises(EngineError):
                require_limits(**{name: bounds[end] / 2 if end == "ge" else bounds[end] * 2})
    assert limit.whole == ("allow_inf_nan" not in bounds)


def test_steps_are_counted_up_to_the_most() -> None:
    require_limits(step=1.0 / MOST_STEPS, span=1.0)
    with pytest.raises(EngineError, match="too small"):
        require_limits(step=0.5 / MOST_STEPS, span=1.0)


def test_float32_holds_less_than_float64() -> None:
    assert np.finfo(np.float32).eps < finest_rtol("float32") < 1e2 * np.finfo(np.float32).eps
    assert np.finfo(np.float64).eps < finest_rtol("float64") < 1e3 * np.finfo(np.float64).eps


@pytest.mark.parametrize("times", [[3.0], [-1.0, 0.0], [1e9, 1e9 + 1], np.arange(3), (0, 1)])
def test_times_that_engines_take(times) -> None:
    found = require_times(times)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, times)


@pytest.mark.parametrize(
    ("times", "named"),
    [
        ([], "non-empty"),
        (1.0, "vector"),
        ([[0.0, 1.0]], "vector"),
        ([0.0, np.nan], r"times\[1\] = nan"),
        ([-np.inf, 0.0], r"times\[0\] = -inf"),
        ([5.0, 1.0, 0.0], r"increase strictly.* times\[0\] = 5.0 is followed by 1.0"),
        ([0.0, 1.0, 1.0], r"times\[1\] = 1.0 is followed by 1.0"),
        ([1e9, 1e9 + 1e-9], "increase strictly"),  # equal in float64
        ([-1.7e308, 1.7e308], "between"),
    ],
)
def test_times_that_no_engine_takes_are_named(times, named: str) -> None:
    with pytest.raises(EngineError, match=named):
        require_times(times)
