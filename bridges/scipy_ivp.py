"""SciPy's DOP853 and RK23, taken step by step, and fixed-step methods with step halving."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from scipy.integrate import DOP853, RK23

from bridges.engine import Capabilities
from bridges.fixed_step import MIDPOINT, RK8, FixedStep
from bridges.methods import Method
from bridges.problem import Array, OdeProblem, Rhs
from bridges.stepping import StepFailure, SteppedEngine, Stepper

_ADAPTIVE: dict[str, Any] = {"DOP853": DOP853, "RK23": RK23}
_FIXED_STEP = {"Midpoint": MIDPOINT, "RK8": RK8}


class ScipyEngine(SteppedEngine):
    """Explicit methods: DOP853 where accuracy limits the step, RK23 and Midpoint for kinked fields, RK8 for fields that
    jump at known times.
    """

    name = "scipy"
    methods = {  # noqa: RUF012 (read only)
        "DOP853": Method(kind="explicit", order=8),
        "RK23": Method(kind="explicit", order=3),
        "Midpoint": Method(kind="explicit", order=2, step="required", jumps=True),
        "RK8": Method(kind="explicit", order=8, step="required", jumps=True),
    }
    capabilities = Capabilities(embedded=True)

    @property
    def version(self) -> str:
        return f"SciPy {scipy.__version__}"

    @property
    def remedy(self) -> str:
        return "pip install --force-reinstall scipy"

    def stepper(self, problem: OdeProblem, method: str, rhs: Rhs) -> Stepper:
        """See `SteppedEngine.stepper`."""
        if method in _FIXED_STEP:
            return FixedStep(_FIXED_STEP[method], problem, rhs)
        return _Adaptive(_ADAPTIVE[method], problem, rhs)


class _Adaptive:
    def __init__(self, method: Any, problem: OdeProblem, rhs: Rhs) -> None:
        self._evaluations = 0
        times, remembered = problem.times, dict(problem.memory)

        def field(t: float, y: Array) -> Array:
            if "rate" in remembered:  # of the start, which the step before had found
                return remembered.pop("rate").copy()
            self._evaluations += 1
            dy = np.empty_like(y)
            rhs(t, y, dy)
            return dy

        self._solver = method(
            field,
            times[0],
            problem.y0,
            times[-1],
            rtol=problem.rtol,
            atol=problem.atol,
            max_step=np.inf if problem.max_step is None else problem.max_step,
            # SciPy refuses a first step beyond the end, to which it would be cut.
            first_step=min(float(remembered["step"][0]), times[-1] - times[0]) if remembered else None,
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

    def memory(self) -> dict[str, Array]:
        """The length of the step to come, and the rate at its start; no more is there to a one-step method."""
        return {"step": np.array([self._solver.h_abs]), "rate": self._solver.f}

    def release(self) -> None:
        """SciPy's solvers hold functions that hold them."""
        vars(self._solver).clear()
        self._dense = None

    def error_at_sample(self) -> float | None:
        return None
