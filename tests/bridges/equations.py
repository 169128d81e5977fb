"""Every method of every engine, and equations with known answers to try them on."""

from __future__ import annotations

import numpy as np
import pytest

from bridges import Engine, OdeProblem, OdeSolution, engine_names, get_engine
from bridges.julia.engine import DiffeqEngine
from tests.bridges.jobs import STAND_IN
from tests.bridges.toy_engine import ToyEngine

NO_JULIA = get_engine("diffeq").lacks()
needs_julia = [pytest.mark.julia, pytest.mark.skipif(bool(NO_JULIA), reason=f"no Julia: {NO_JULIA}")]


def engine_called(name: str) -> Engine:
    """A registered engine; "stand-in": the Julia engine with SciPy in its worker; "toy": not registered."""
    if name == "stand-in":
        return DiffeqEngine(STAND_IN)
    return ToyEngine() if name == "toy" else get_engine(name)


STAND_IN_METHODS = ("Vern9", "DP5", "FBDF", "ROCK4", "RK4")
METHODS = [
    (name, method)
    for name in (*engine_names(), "stand-in", "toy")
    for method in (STAND_IN_METHODS if name == "stand-in" else engine_called(name).methods)
]


def properties(engine: str, method: str):
    return engine_called(engine).methods[method]


ADAPTIVE = [pair for pair in METHODS if properties(*pair).step != "required"]


def parametrised(pairs):
    marked = [pytest.param(*pair, marks=needs_julia if pair[0] == "diffeq" else ()) for pair in pairs]
    return pytest.mark.parametrize(("engine", "method"), marked, ids=lambda value: str(value))


every_method, adaptive_methods = parametrised(METHODS), parametrised(ADAPTIVE)

RATES = np.array([1.0, 0.3, 2.0])
Y0 = np.array([1.0, -2.0, 0.5])


def decay(t, y, dy):
    dy[:] = -RATES * y


def oscillator(t, y, dy):
    dy[0], dy[1] = y[1], -y[0]


def fixed_step(engine: str, method: str) -> float | None:
    """Small enough for an error of 1e-5 on these equations; None for a method that chooses its steps."""
    if properties(engine, method).step != "required":
        return None
    return {1: 1e-5, 2: 0.01}.get(properties(engine, method).order, 0.05)


def solve(engine: str, method: str, rhs, y0, times, **options) -> tuple[np.ndarray, OdeSolution]:
    """The samples in a row, and the solution."""
    samples: list[np.ndarray] = []

    def keep(index, t, y):
        assert index == len(samples)
        assert t == times[index]
        samples.append(np.array(y))

    if method in engine_called(engine).methods:
        options = {"step": fixed_step(engine, method)} | options
    problem = OdeProblem(rhs, np.asarray(y0, float), np.asarray(times, float), **options)
    solution = engine_called(engine).solve(problem, method, keep)
    assert solution.samples == len(samples)
    return np.array(samples), solution
