"""Does an engine work here? Its methods on problems whose solutions are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bridges.engine import Engine
from bridges.engines import ENGINES, get_engine
from bridges.errors import EngineError
from bridges.problem import Array, OdeProblem, OdeSolution, Rhs
from bridges.solving import solve_with

TOLERATED_ERROR = 1e-3
"""A method is right if its largest error at the end is below this."""


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


DECAY = KnownProblem("decay", _decay, np.ones(3), lambda t: np.full(3, np.exp(-t)))
PROBLEMS = (
    DECAY,
    KnownProblem("oscillator", _oscillator, np.array([0.0, 1.0]), lambda t: np.array([np.sin(t), np.cos(t)])),
    KnownProblem("Prothero and Robinson", _stiff, np.ones(1), lambda t: np.array([np.cos(t)])),
)


@dataclass(frozen=True)
class Tried:
    """How a method did on a problem; `microseconds` a right-hand side, compilation apart."""

    method: str
    problem: str
    error: float
    rhs_evaluations: int
    microseconds: float
    status: str

    @property
    def right(self) -> bool:
        return self.status == "success" and self.error < TOLERATED_ERROR


@dataclass(frozen=True)
class EngineTrial:
    """Whether an engine works, what it is, and what to do if it does not."""

    name: str
    works: bool
    detail: str
    remedy: str = ""


def try_engine(name: str, known: KnownProblem = DECAY) -> EngineTrial:
    """The trial methods of a registered engine on a known problem. An engine that is not installed is not started.

    Raises:
        UnknownEngineError: no engine has this name.
    """
    try:
        engine = get_engine(name)
    except ImportError as failure:
        remedy = f"install {failure.name}" if failure.name else "reinstall its library"
        return EngineTrial(name, False, f"it cannot be imported: {failure}", remedy)
    lacks = engine.lacks()
    if lacks:
        return EngineTrial(name, False, lacks, engine.remedy)
    worst = 0.0
    try:
        for method in engine.trial_methods:
            error, solution = _solve(engine, method, known)
            if solution.status != "success" or not error < TOLERATED_ERROR:
                wrong = f"{method} is wrong by {error:.1e} on a known equation ({solution.message})"
                return EngineTrial(name, False, wrong, engine.remedy)
            worst = max(worst, error)
        version = engine.version
    except (EngineError, ImportError) as failure:
        return EngineTrial(name, False, str(failure), engine.remedy)
    tried = ", ".join(engine.trial_methods)
    return EngineTrial(name, True, f"{version}: {tried}; error {worst:.0e} on {known.name}")


def try_engines() -> tuple[EngineTrial, ...]:
    """Every registered engine."""
    return tuple(try_engine(name) for name in sorted(ENGINES))


def try_methods(engine: Engine, problems: Sequence[KnownProblem] = PROBLEMS) -> Iterator[Tried]:
    """Every method of an engine on every problem."""
    for method in engine.methods:
        for known in problems:
            error, solution = _solve(engine, method, known)
            count, seconds = solution.statistics.rhs_evaluations, solution.statistics.wall_seconds
            yield Tried(method, known.name, error, count, 1e6 * seconds / max(count, 1), solution.status)


def _solve(engine: Engine, method: str, known: KnownProblem) -> tuple[float, OdeSolution]:
    """The largest error at t = 1 (nan if it was not reached), and the solution."""
    properties = engine.methods[method]
    step = None
    if properties.step == "required":
        step = 1e-4 if properties.order <= 2 else 5e-3
    last = np.full_like(known.y0, np.nan)

    def keep(index: int, t: float, y: Array) -> None:
        if index == 1:
            last[:] = y

    problem = OdeProblem(known.rhs, known.y0, np.array([0.0, 1.0]), rtol=1e-6, atol=1e-9, step=step)
    solution = solve_with(engine, problem, method, keep)
    return float(np.abs(last - known.exact(1.0)).max()), solution
