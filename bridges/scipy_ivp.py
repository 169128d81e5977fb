"""SciPy's DOP853 and RK23, driven step by step, and a fixed-step midpoint rule with step halving."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy
from scipy.integrate import DOP853, RK23

from bridges.driving import StepFailure, Stepper, drive
from bridges.engine import Array, EngineError, OdeProblem, OdeSolution, OnSample, Rhs, require_method

_ADAPTIVE: dict[str, Any] = {"DOP853": DOP853, "RK23": RK23}


class ScipyEngine:
    """Explicit methods: DOP853 where accuracy limits the step, RK23 and Midpoint for kinked fields."""

    name = "scipy"
    methods = ("DOP853", "RK23", "Midpoint")

    @property
    def version(self) -> str:
        return f"SciPy {scipy.__version__}"

    def solve(self, problem: OdeProblem, method: str, on_sample: OnSample) -> OdeSolution:
        """See `Engine.solve`. Midpoint needs `problem.step`; the others refuse it.

        Raises:
            UnknownMethodError: the method is none of `methods`.
            EngineError: a step for an adaptive method, or none for Midpoint.
        """
        require_method(self, method)
        if (method == "Midpoint") != (problem.step is not None):
            raise EngineError(
                "method 'Midpoint' has a fixed step: give `step`"
                if method == "Midpoint"
                else f"method {method!r} chooses its own steps: give tolerances, not `step`"
            )

        def make(rhs: Rhs) -> Stepper:
            if method == "Midpoint":
                return _Midpoint(problem, rhs)
            return _Adaptive(_ADAPTIVE[method], problem, rhs)

        return drive(problem, make, on_sample, engine=self.name, method=method)


class _Adaptive:
    def __init__(self, method: Any, problem: OdeProblem, rhs: Rhs) -> None:
        self._evaluations = 0

        def field(t: float, y: Array) -> Array:
            self._evaluations += 1
            dy = np.empty_like(y)
            rhs(t, y, dy)
            return dy

        times = problem.times
        self._solver = method(field, times[0], problem.y0, times[-1], rtol=problem.rtol, atol=problem.atol)
        self._dense: Any = None
        self.steps = 0
        self.rejected_steps = 0

    @property
    def t(self) -> float:
        return float(self._solver.t)

    def advance(self) -> None:
        before = self._evaluations
        message = self._solver.step()
        # An attempt costs n_stages evaluations (the first stage is the last of the step before).
        attempts = (self._evaluations - before) // self._solver.n_stages
        self._dense = None
        if self._solver.status == "failed":
            self.rejected_steps += attempts
            raise StepFailure(str(message).rstrip("."))
        self.steps += 1
        self.rejected_steps += attempts - 1

    def at(self, t: float) -> Array:
        if t == self._solver.t:
            return np.asarray(self._solver.y)
        if self._dense is None:
            self._dense = self._solver.dense_output()
        return np.asarray(self._dense(t))

    def error_at_sample(self) -> float | None:
        return None


class _Midpoint:
    """y + h f(t + h/2, y + h/2 f(t, y)), with step h and with h/2 side by side; their difference is the
    error estimate and the finer one is the solution. Samples fall on steps, so nothing is interpolated.
    """

    def __init__(self, problem: OdeProblem, rhs: Rhs) -> None:
        assert problem.step is not None
        self._rhs, self._times, self._step = rhs, problem.times, problem.step
        self._coarse, self._fine = problem.y0.copy(), problem.y0.copy()
        self._slope = np.empty_like(problem.y0)
        self._interval, self._done, self._in_interval = 0, 0, 0
        self.t = float(problem.times[0])
        self.steps = 0
        self.rejected_steps = 0

    def advance(self) -> None:
        start, end = self._times[self._interval], self._times[self._interval + 1]
        if self._done == 0:
            self._in_interval = max(1, math.ceil((end - start) / self._step * (1 - 1e-12)))
        h = (end - start) / self._in_interval
        t = start + self._done * h
        self._midpoint(t, h, self._coarse)
        self._midpoint(t, h / 2, self._fine)
        self._midpoint(t + h / 2, h / 2, self._fine)
        self.steps += 1
        self._done += 1
        if self._done == self._in_interval:
            self._interval, self._done = self._interval + 1, 0
            self.t = float(end)
        else:
            self.t = float(t + h)

    def _midpoint(self, t: float, h: float, y: Array) -> None:
        self._rhs(t, y, self._slope)
        middle = y + (h / 2) * self._slope
        self._rhs(t + h / 2, middle, self._slope)
        y += h * self._slope

    def at(self, t: float) -> Array:
        assert t == self.t
        return self._fine

    def error_at_sample(self) -> float | None:
        return float(np.linalg.norm(self._coarse - self._fine))
