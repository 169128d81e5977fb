"""Known problems for every method of an engine: is it right, and what does a right-hand side cost?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bridges.engine import Array, Engine, OdeProblem, Rhs
from bridges.julia.methods import METHODS


@dataclass(frozen=True)
class KnownProblem:
    """An initial value problem to t = 1 whose solution is known."""

    name: str
    rhs: Rhs
    y0: Array
    exact: Callable[[float], Array]


def _decay(t: float, y: Array, dy: Array) -> None:
    np.negative(y, out=dy)


def _oscillator(t: float, y: Array, dy: Array) -> None:
    dy[0], dy[1] = y[1], -y[0]


def _stiff(t: float, y: Array, dy: Array) -> None:
    dy[:] = -100 * (y - np.cos(t)) - np.sin(t)


PROBLEMS = (
    KnownProblem("decay", _decay, np.ones(3), lambda t: np.full(3, np.exp(-t))),
    KnownProblem("oscillator", _oscillator, np.array([0.0, 1.0]), lambda t: np.array([np.sin(t), np.cos(t)])),
    KnownProblem("Prothero and Robinson", _stiff, np.ones(1), lambda t: np.array([np.cos(t)])),
)


@dataclass(frozen=True)
class Tried:
    """How a method did on a problem; `microseconds` a right-hand side, of a second solve in a warm worker."""

    method: str
    problem: str
    error: float
    rhs_evaluations: int
    microseconds: float
    status: str


def try_methods(engine: Engine, rtol: float = 1e-6) -> Iterator[Tried]:
    """Every method of the engine on every problem."""
    for method in engine.methods:
        low = METHODS[method].order <= 2 if method in METHODS else method == "Midpoint"
        for known in PROBLEMS:
            last = np.zeros_like(known.y0)

            def keep(index: int, t: float, y: Array, last: Array = last) -> None:
                last[:] = y

            step = (1e-4 if low else 5e-3) if method in engine.fixed_step_methods else None
            problem = OdeProblem(known.rhs, known.y0, np.array([0.0, 1.0]), rtol, 1e-3 * rtol, step=step)
            engine.solve(problem, method, keep)  # compiles
            started = time.perf_counter()
            solution = engine.solve(problem, method, keep)
            seconds = time.perf_counter() - started
            count = solution.statistics.rhs_evaluations
            yield Tried(
                method,
                known.name,
                float(np.abs(last - known.exact(1.0)).max()),
                count,
                1e6 * seconds / max(count, 1),
                solution.status,
            )
