"""SUNDIALS CVODE through scikit-sundae: BDF with matrix-free GMRES, and Adams."""

from __future__ import annotations

import importlib.metadata

import numpy as np
from sksundae.cvode import CVODE

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
from bridges.stepping import StepFailure, drive

_PATIENCE = 10  # calls in a row that may leave the time where it was


class SundialsEngine:
    """Multistep methods of variable order and step; for fields whose stability limits explicit steps."""

    name = "sundials"
    methods = ("BDF", "Adams")
    fixed_step_methods: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        return f"scikit-sundae {importlib.metadata.version('scikit-sundae')}"

    def require_ready(self) -> None:
        """It is: its wheel came with ours."""

    def solve(self, problem: OdeProblem, method: str, on_sample: OnSample) -> OdeSolution:
        """See `Engine.solve`.

        Raises:
            UnknownMethodError: the method is none of `methods`.
            EngineError: a fixed step, which CVODE does not have, or restarts.
        """
        require_method(self, method)
        if problem.step is not None:
            raise EngineError(f"method {method!r} chooses its own steps: give tolerances, not `step`")
        require_no_restarts(problem, method)
        return drive(
            problem,
            lambda rhs: _Cvode(method, problem, rhs),
            on_sample,
            engine=self.name,
            method=method,
        )


class _Cvode:
    def __init__(self, method: str, problem: OdeProblem, rhs: Rhs) -> None:
        self._last_rhs_t = -np.inf
        self._backward = 0

        def field(t: float, y: Array, dy: Array) -> None:
            # CVODE keeps its count of failed attempts to itself, but an attempt evaluates at the end of
            # its step: when that time moves back, a smaller step is being tried.
            if t < self._last_rhs_t:
                self._backward += 1
            self._last_rhs_t = t
            rhs(t, y, dy)

        start, self._end = float(problem.times[0]), float(problem.times[-1])
        self._solver = CVODE(
            field,
            method=method,
            linsolver="gmres",  # Jacobian–vector products by difference quotient: one gradient each
            rtol=problem.rtol,
            atol=problem.atol,
            max_step=0.0 if problem.max_step is None else problem.max_step,  # 0: no limit
        )
        self._solver.init_step(start, problem.y0)
        self._y = problem.y0
        self.t = start
        self.steps = 0
        self.rejected_steps = 0

    def advance(self) -> None:
        reached = self.t
        self._backward = 0
        for _ in range(_PATIENCE):
            # After a look back inside the last step CVODE first returns to its own time, without a step.
            result = self._solver.step(self._end, method="onestep", tstop=self._end)
            if not result.success:
                raise StepFailure(f"CVODE: {result.message.rstrip('.')}")
            self.t, self._y = float(result.t), result.y
            if self.t > reached:
                break
        else:
            raise StepFailure("CVODE: the step has shrunk below the rounding of the time")
        self.steps += 1
        if self.steps > 1:  # the first step also probes to find its length
            self.rejected_steps += self._backward

    def at(self, t: float) -> Array:
        if t == self.t:
            return self._y
        result = self._solver.step(t, method="normal")
        if not result.success:
            raise StepFailure(f"CVODE: {result.message.rstrip('.')}")
        return np.asarray(result.y)

    def error_at_sample(self) -> float | None:
        return None
