"""SciPy's DOP853 and RK23, driven step by step, and fixed-step methods with step halving."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from scipy.integrate import DOP853, RK23

from bridges.engine import (
    Array,
    EngineError,
    OdeProblem,
    OdeSolution,
    OnSample,
    Rhs,
    require_method,
    require_no_restarts,
)
from bridges.fixed_step import MIDPOINT, RK8, FixedStep
from bridges.stepping import StepFailure, Stepper, drive

_ADAPTIVE: dict[str, Any] = {"DOP853": DOP853, "RK23": RK23}
_FIXED_STEP = {"Midpoint": MIDPOINT, "RK8": RK8}


class ScipyEngine:
    """Explicit methods: DOP853 where accuracy limits the step, RK23 and Midpoint for kinked fields, RK8 for fields that
    jump at known times.
    """

    name = "scipy"
    methods = ("DOP853", "RK23", "Midpoint", "RK8")
    fixed_step_methods = tuple(_FIXED_STEP)

    @property
    def version(self) -> str:
        return f"SciPy {scipy.__version__}"

    def require_ready(self) -> None:
        """It is: its wheel came with ours."""

    def solve(self, problem: OdeProblem, method: str, on_sample: OnSample) -> OdeSolution:
        """See `Engine.solve`. Midpoint and RK8 need `problem.step`; the others refuse it.

        Raises:
            UnknownMethodError: the method is none of `methods`.
            EngineError: a step or restarts for an adaptive method, or no step for a fixed-step one.
        """
        require_method(self, method)
        if (method in _FIXED_STEP) != (problem.step is not None):
            raise EngineError(
                f"method {method!r} has a fixed step: give `step`"
                if method in _FIXED_STEP
                else f"method {method!r} chooses its own steps: give tolerances, not `step`"
            )
        if method not in _FIXED_STEP:
            require_no_restarts(problem, method)

        def make(rhs: Rhs) -> Stepper:
            if method in _FIXED_STEP:
                return FixedStep(_FIXED_STEP[method], problem, rhs)
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
        self._solver = method(
            field,
            times[0],
            problem.y0,
            times[-1],
            rtol=problem.rtol,
            atol=problem.atol,
            max_step=np.inf if problem.max_step is None else problem.max_step,
        )
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
