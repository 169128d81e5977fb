"""The one way to an engine: times are counted from the start, and what comes back is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bridges.engine import Engine
from bridges.problem import OdeProblem, OdeSolution, OnSample, Rhs, Statistics, Status
from bridges.vectors import Vector, is_finite


def solve_with(engine: Engine, problem: OdeProblem, method: str, on_sample: OnSample) -> OdeSolution:
    """`Engine.solve` on times that begin at 0, and the caller's own times in what is given back.

    A place to go on from (`OdeProblem.kept`) has the engine's time.

    At t = 1e9 a step of 1e-9 is lost in the time's rounding, and methods stop, stall or take zero for the time that has
    passed. So the engine's time is the time since the start; right-hand sides, samples and messages have the caller's.

    An engine's "success" is not taken on trust: that all samples came, in order, at their times and finite, that the
    last time was reached, and that the field was evaluated at all. What fails is a status of the solution.

    Raises:
        EngineError, or what a callable raises: as `Engine.solve`.
    """
    heard = _Samples(problem, on_sample)
    evaluated = problem.kept is not None  # it goes on with what was evaluated before

    def rhs(t: float, y: Vector, dy: Vector) -> None:
        nonlocal evaluated
        evaluated = True
        problem.rhs(t + origin, y, dy)

    def ahead(since_start: Rhs) -> Rhs:
        """A field of the engine's time as one of the caller's."""
        return lambda t, y, dy: since_start(t - origin, y, dy)

    origin = float(problem.times[0])
    jvp, sharpness = problem.jvp, problem.sharpness
    counted = replace(
        problem,
        rhs=rhs,
        times=problem.times - origin,
        restarts=None if problem.restarts is None else problem.restarts - origin,
        jvp=None if jvp is None else lambda t, y, v, out: jvp(t + origin, y, v, out),
        sharpness=None if sharpness is None else lambda t, y, rhs: sharpness(t + origin, y, ahead(rhs)),
        origin=problem.origin + origin,
    )
    heard.asked = counted
    try:
        solution = engine.solve(counted, method, heard)
    except _UnusableSample as unusable:
        so_far = getattr(unusable, "ode_solution", None) or _nothing(engine, method)
        return replace(so_far, status=unusable.status, message=str(unusable), samples=heard.count)
    wrong = _wrong(solution, counted, heard.count, evaluated=evaluated)
    if wrong:
        return replace(solution, status="step_failure", message=wrong, samples=heard.count)
    return solution


class _UnusableSample(Exception):  # noqa: N818 (an outcome of the solve)
    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status


class _Samples:
    """Hands on the samples that are as they should be.

    Attributes:
        count: how many there were.
        asked: the problem as the engine has it.
    """

    def __init__(self, problem: OdeProblem, on_sample: Callable[[int, float, Vector], None]) -> None:
        self._problem, self._on_sample = problem, on_sample
        self.count, self.asked = 0 if problem.kept is None else problem.kept.samples, problem

    def __call__(self, index: int, t: float, y: Vector) -> None:
        times, clock = self.asked.times, self.asked.clock
        if index != self.count or index >= times.size:
            raise _UnusableSample("step_failure", f"sample {index} came where {self.count} was due")
        span = float(times[-1] - times[0])
        if not abs(t - times[index]) <= 1e-9 * span:
            raise _UnusableSample(
                "step_failure",
                f"sample {index} is of t = {clock(t)}, not of its own time",
            )
        if np.shape(y) != self._problem.y0.shape or not is_finite(y):
            raise _UnusableSample(
                "non_finite",
                f"the state has entries that are not finite at t = {clock(t)}",
            )
        self._on_sample(index, float(self._problem.times[index]), y)
        self.count += 1


def _wrong(solution: OdeSolution, problem: OdeProblem, samples: int, *, evaluated: bool) -> str:
    """What does not go with an engine's success; "" if nothing."""
    if solution.status != "success":
        return ""
    said, times = "the engine says success", problem.times
    if samples < times.size:
        return f"{said}, with {samples} of {times.size} samples"
    if times.size > 1 and not evaluated:
        return f"{said}, without having evaluated the right-hand side"
    reached = solution.time - problem.origin
    # What is left of a time after the origin was added and taken away again.
    lost = 4 * np.finfo(float).eps * abs(problem.origin)
    if not reached >= times[-1] * (1 - 1e-9) - lost:
        return f"{said}, having reached t = {problem.clock(reached)} alone"
    return ""


def _nothing(engine: Engine, method: str) -> OdeSolution:
    return OdeSolution(engine.name, method, "step_failure", "", 0.0, 0, Statistics())
