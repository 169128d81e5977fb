"""SUNDIALS CVODE through scikit-sundae: BDF with matrix-free GMRES, and Adams."""

from __future__ import annotations

import importlib.metadata

import numpy as np

from bridges.counted import CountedField
from bridges.engine import Capabilities
from bridges.methods import Method
from bridges.problem import Array, Jvp, OdeProblem, Rhs
from bridges.stepping import StepFailure, SteppedEngine, Stepper

_MAX_STALLED_CALLS = 10  # calls in a row that may leave the time where it was


class SundialsEngine(SteppedEngine):
    """Multistep methods of variable order and step; for fields whose stability limits explicit steps."""

    name = "sundials"
    methods = {  # noqa: RUF012 (read only)
        "BDF": Method(kind="implicit", order=5, cheap_jvp=True),
        "Adams": Method(kind="implicit", order=12, cheap_jvp=True),
    }
    capabilities = Capabilities(embedded=True)

    @property
    def version(self) -> str:
        return f"scikit-sundae {importlib.metadata.version('scikit-sundae')}"

    @property
    def remedy(self) -> str:
        return "pip install --force-reinstall scikit-sundae"

    def lacks(self) -> str:
        """What is wrong with the import of scikit-sundae, which is imported here and not before."""
        try:
            import sksundae.cvode  # noqa: F401
        except ImportError as error:
            return f"scikit-sundae cannot be imported ({error})"
        return ""

    def stepper(self, problem: OdeProblem, method: str, rhs: Rhs) -> Stepper:
        """See `SteppedEngine.stepper`."""
        return _Cvode(problem, method, rhs, None)

    def stepper_of(self, problem: OdeProblem, method: str, counted: CountedField) -> Stepper:
        """With the field's own product, if there is one."""
        return _Cvode(problem, method, counted.rhs, None if problem.jvp is None else counted.jvp())


class _Cvode:
    def __init__(self, problem: OdeProblem, method: str, rhs: Rhs, jvp: Jvp | None) -> None:
        from sksundae.cvode import CVODE, CVODEJacTimes

        self._last_rhs_t = -np.inf
        self._backward = 0

        def field(t: float, y: Array, dy: Array) -> None:
            # CVODE does not tell its count of failed attempts, but an attempt evaluates at the end of its step: when
            # that time moves back, a smaller step is being tried.
            if t < self._last_rhs_t:
                self._backward += 1
            self._last_rhs_t = t
            rhs(t, y, dy)

        def product(t: float, y: Array, dy: Array, v: Array, out: Array) -> None:
            assert jvp is not None
            jvp(t, y, v, out)

        start, self._end = float(problem.times[0]), float(problem.times[-1])
        self._solver = CVODE(
            field,
            method=method,
            linsolver="gmres",
            # Without, products with the Jacobian are difference quotients: a right-hand side each.
            jactimes=None if jvp is None else CVODEJacTimes(None, product),
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
        for _ in range(_MAX_STALLED_CALLS):
            # After an interpolation inside the last step CVODE first returns to its own time, without a step.
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
            return np.asarray(self._y)
        result = self._solver.step(t, method="normal")
        if not result.success:
            raise StepFailure(f"CVODE: {result.message.rstrip('.')}")
        return np.asarray(result.y)

    def release(self) -> None:
        """CVODE holds the field, which holds this."""
        del self._solver

    def error_at_sample(self) -> float | None:
        return None
