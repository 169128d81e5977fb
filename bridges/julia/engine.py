"""DifferentialEquations.jl as an engine: an OdeProblem to the worker, its samples to the callback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bridges.engine import (
    Array,
    EngineError,
    OdeProblem,
    OdeSolution,
    OnSample,
    Rhs,
    Statistics,
    Status,
    require_method,
    require_no_restarts,
)
from bridges.julia.caller import Callbacks, Worker, WorkerError
from bridges.julia.installing import require_ready, worker_environment
from bridges.julia.methods import FIXED_STEP, METHODS
from bridges.stepping import Meter, Stop

JULIA = "bridges.julia.julia:JuliaBackend"
_MAX_STEPS = 10**7

_default = JULIA
_workers: dict[str, Worker] = {}
_workers_lock = threading.Lock()


def shared_worker(backend: str = JULIA) -> Worker:
    """The one worker of this process that has this backend; it starts when first asked."""
    with _workers_lock:
        if backend not in _workers:
            julia = backend == JULIA
            _workers[backend] = Worker(
                backend, worker_environment if julia else None, require_ready if julia else None
            )
        return _workers[backend]


class DiffeqEngine:
    """Every method of DifferentialEquations.jl that takes a state of any size; in a worker process.

    Args:
        backend: what solves in the worker; Julia if None.
    """

    name = "diffeq"
    methods = tuple(METHODS)
    fixed_step_methods = FIXED_STEP

    def __init__(self, backend: str | None = None) -> None:
        self._backend = _default if backend is None else backend

    @property
    def version(self) -> str:
        """Libraries and their versions; starts the worker."""
        try:
            versions = shared_worker(self._backend).versions()
        except WorkerError as error:
            raise EngineError(f"engine 'diffeq': {error}") from None
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    def require_ready(self) -> None:
        """Raises EngineError, with the remedy, if Julia or its packages are missing; starts nothing."""
        if self._backend == JULIA:
            require_ready()

    def solve(self, problem: OdeProblem, method: str, on_sample: OnSample) -> OdeSolution:
        """See `Engine.solve`. Any explicit method takes a step; "Midpoint", "Euler", "Heun" and "RK4" need one.

        Raises:
            UnknownMethodError: the method is none of `methods`.
            EngineError: options that do not go together, or no Julia.
        """
        require_method(self, method)
        kind = METHODS[method].kind
        if method in FIXED_STEP and problem.step is None:
            raise EngineError(f"method {method!r} has a fixed step: give `step`")
        if problem.step is not None and kind != "explicit":
            raise EngineError(f"method {method!r} chooses its own steps: give tolerances, not `step`")
        require_no_restarts(problem, method)
        meter = Meter(problem)
        samples = 0
        times = problem.times

        def hand_out(index: int, state: Array) -> None:
            nonlocal samples
            on_sample(index, float(times[index]), state)
            samples += 1

        def solution(
            status: Status, message: str, time: float, steps: int = 0, rejected: int = 0
        ) -> OdeSolution:
            return OdeSolution(
                engine=self.name,
                method=method,
                status=status,
                message=message if status == "success" else f"{message} at t = {time:.6g}",
                time=time,
                samples=samples,
                statistics=Statistics(meter.count, steps, rejected, meter.seconds),
            )

        if times.size == 1:
            hand_out(0, problem.y0)
            return solution("success", "the last sample time was reached", float(times[0]))
        vector = np.ndim(problem.atol) > 0
        job: dict[str, Any] = {
            "method": method,
            "kind": kind,
            "times": times.tolist(),
            "rtol": problem.rtol,
            "atol": None if vector else float(problem.atol),
            "step": problem.step,
            "max_step": problem.max_step,
            "jvp": problem.jvp is not None and kind == "implicit",
            "sharpness": problem.sharpness is not None and kind == "stabilised",
            "max_steps": problem.max_steps or _MAX_STEPS,
        }
        callbacks = Callbacks(meter, hand_out, problem.jvp, problem.sharpness)
        try:
            ending = shared_worker(self._backend).solve(
                job, problem.y0, np.asarray(problem.atol) if vector else None, callbacks
            )
        except Stop as stop:
            return solution(stop.status, str(stop), meter.last_t)
        except WorkerError as error:
            return solution("step_failure", str(error).rstrip("."), meter.last_t)
        except EngineError:
            raise
        except BaseException as error:
            so_far = solution("step_failure", f"{type(error).__name__} was raised", meter.last_t)
            error.ode_solution = so_far  # type: ignore[attr-defined]
            error.add_note(
                f"{self.name} {method}: {so_far.message}; {samples} of {times.size} samples are done"
            )
            raise
        counts = (int(ending["steps"]), int(ending["rejected_steps"]))
        code = ending["retcode"]
        if code == "MaxIters" and problem.max_steps is not None:
            limit = f"the limit of {problem.max_steps} steps was reached"
            return solution("max_steps", limit, ending["time"], *counts)
        if code != "Success":
            return solution("step_failure", _RETCODES.get(code, code), ending["time"], *counts)
        return solution("success", "the last sample time was reached", float(times[-1]), *counts)

    def solve_noisy(
        self,
        drift: Rhs,
        *,
        factor: Array,
        y0: Array,
        time: float,
        step: float,
        seeds: Sequence[int],
        method: str,
        on_member: Callable[[int, Array], None],
    ) -> None:
        """Paths of dy = drift dt + factor dW from 0 to `time`, one for each seed; StochasticDiffEq.jl.

        Args:
            factor: shape (n,), diagonal noise, or (r, n), r Wiener processes; constant.
            step: of fixed-step methods, the first one of adaptive ones.
            method: "EM", "SOSRA", "SRA1", "LambaEM", … by its name in StochasticDiffEq.
            on_member: (index, state at `time`); copy what must outlive the call.

        Raises:
            EngineError: no Julia, no StochasticDiffEq, an unknown method, or a path that leaves the numbers.
        """
        job = {
            "method": method,
            "time": time,
            "step": step,
            "seeds": list(seeds),
            "diagonal": factor.ndim == 1,
        }
        try:
            ending = shared_worker(self._backend).noisy(
                job, y0, {"factor": factor}, Callbacks(drift, on_member)
            )
        except WorkerError as error:
            raise EngineError(f"engine 'diffeq': {error}") from None
        if ending["retcode"] != "Success":
            code = ending["retcode"]
            raise EngineError(f"diffeq {method} stopped: {_RETCODES.get(code, code)}")

    def solve_laws(
        self,
        *,
        order: int,
        m: Array,
        b: Array,
        kappa: Array,
        force: Array,
        y0: Array,
        times: Array,
        method: str,
        rtol: float,
        atol: float,
    ) -> tuple[Array, int]:
        """The driven laws of many charges in one solve inside the worker, with no callback.

        During step k: m[k] Q̈ + b[k] Q̇ + κQ = F[k] (order 2, y0 = Q and Q̇ end to end), or Q̇ = −κQ + F[k] (order 1).

        Args:
            m, b, force: shape (steps, charges).
            kappa: shape (charges,).
            times: shape (steps+1,), the ends of the steps.

        Returns:
            Q at `times`, shape (steps+1, charges), and the number of right-hand sides.

        Raises:
            UnknownMethodError: the method is none of `methods`.
            EngineError: no Julia, or it gave up.
        """
        require_method(self, method)
        arrays = {"m": m, "b": b, "kappa": kappa, "force": force, "y0": y0, "times": times}
        job = {"method": method, "order": order, "rtol": rtol, "atol": atol}
        try:
            ending = shared_worker(self._backend).laws(job, arrays)
        except WorkerError as error:
            raise EngineError(f"engine 'diffeq': {error}") from None
        if ending["retcode"] != "Success":
            code = ending["retcode"]
            raise EngineError(
                f"diffeq {method} stopped: {_RETCODES.get(code, code)} at t = {ending['time']:.6g}"
            )
        return ending["arrays"]["charges"], int(ending["rhs_evaluations"])


_RETCODES = {
    "MaxIters": f"MaxIters: {_MAX_STEPS:.0e} steps were not enough",
    "Unstable": "Unstable: the solution leaves the numbers",
    "DtNaN": "DtNaN: the step is not a number",
    "DtLessThanMin": "DtLessThanMin: no step is small enough for the tolerance",
}
