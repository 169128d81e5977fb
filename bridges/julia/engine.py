"""DifferentialEquations.jl as an engine: an OdeProblem to the worker, its samples to the callback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bridges.choosing import Choice, default_rtol
from bridges.counted import CountedField
from bridges.engine import Capabilities, Engine, LawsSolution
from bridges.errors import EngineError
from bridges.julia.conversation import Callbacks
from bridges.julia.installing import REMEDY, installation, require_stochastic, worker_environment
from bridges.julia.methods import METHODS, NOISE_METHODS, best_method
from bridges.julia.process import WorkerError
from bridges.julia.session import WorkerSession
from bridges.methods import Method
from bridges.noise import require_noise_fit
from bridges.options import require_fit, require_method, require_step_fits
from bridges.problem import Array, Kept, OdeProblem, OdeSolution, OnSample, Rhs, SolveStopped, Status

JULIA = "bridges.julia.julia:JuliaBackend"
_MAX_STEPS = 10**7

_default = JULIA
_sessions: dict[str, WorkerSession] = {}
_sessions_lock = threading.Lock()


@contextmanager
def using_backend(backend: str) -> Iterator[None]:
    """Within this block engine "diffeq" has `backend` in its worker instead of Julia; for tests and benchmarks.

    Args:
        backend: "module:Class", see `worker.Backend`; its module is imported in the worker.
    """
    global _default
    before, _default = _default, backend
    try:
        yield
    finally:
        _default = before


def shared_session(backend: str) -> WorkerSession:
    """The one session of this process whose worker has this backend; the worker starts at its first job."""
    with _sessions_lock:
        if backend not in _sessions:
            julia = backend == JULIA
            _sessions[backend] = WorkerSession(
                backend,
                environment=worker_environment if julia else None,
                require_ready=DiffeqEngine(backend).require_ready,
            )
        return _sessions[backend]


class DiffeqEngine(Engine):
    """Every method of DifferentialEquations.jl that takes a state of any size; in a worker process.

    Args:
        backend: what solves in the worker; Julia, or that of `using_backend`, if None.
    """

    name = "diffeq"
    methods = METHODS
    noise_methods = NOISE_METHODS
    capabilities = Capabilities(recommends=True, laws=True, noise=True)
    trial_methods = ("Tsit5", "Vern9")
    laws_method = "Vern7"
    goes_on = True

    def __init__(self, backend: str | None = None) -> None:
        self._backend = _default if backend is None else backend

    @property
    def version(self) -> str:
        """Libraries and their versions; starts the worker."""
        with _as_engine_error():
            versions = self._session.versions()
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    @property
    def remedy(self) -> str:
        return REMEDY if self.lacks() else "`nm-ode bridge install` again, or `nm-ode bridge status`"

    def lacks(self) -> str:
        """What of Julia or its packages is missing; starts nothing."""
        return installation().lacks if self._backend == JULIA else ""

    def require_noise_ready(self) -> None:
        """Also asks for StochasticDiffEq, which not every project has; starts nothing."""
        if self._backend == JULIA:
            require_stochastic()
        self.require_ready()

    def default_method(self, step: float | None) -> str | None:
        """Of the fixed-step methods here none is the obvious one: with a step, one must be named."""
        return super().default_method(None) if step is None else None

    def recommend(self, *, kinks: Sequence[str], stiffness: float, rtol: float | None) -> Choice:
        """See `Engine.recommend`; by docs/bridge.md's table."""
        used = default_rtol(kinks) if rtol is None else rtol
        method, reason = best_method(kinks=bool(kinks), stiffness=stiffness, rtol=used)
        return Choice(self.name, method, used, reason)

    @property
    def _session(self) -> WorkerSession:
        return shared_session(self._backend)

    def solve(self, problem: OdeProblem, method: str, on_sample: OnSample) -> OdeSolution:
        """See `Engine.solve`."""
        properties = require_fit(self, problem, method)
        counted, kept, ahead = CountedField(problem), problem.kept, problem.ahead
        # A place can be kept at a sample: only there the worker tells the state. Its first sample is then known.
        known = 0 if kept is None else kept.samples
        samples, before = (
            known,
            (0, 0) if kept is None else (kept.statistics.steps, kept.statistics.rejected_steps),
        )
        times = ahead.times

        def emit_sample(index: int, state: Array) -> None:
            nonlocal samples
            if kept is not None and index == 0:
                return
            on_sample(samples, float(times[index]), state)
            samples += 1
            if problem.on_step is not None:
                # The worker tells its counts of steps at the end alone.
                spent = counted.statistics(*before)
                problem.on_step(lambda: Kept(float(times[index]), state, samples, spent))

        def solution(
            status: Status, message: str, time: float, steps: int = 0, rejected: int = 0
        ) -> OdeSolution:
            return OdeSolution(
                engine=self.name,
                method=method,
                status=status,
                message=message if status == "success" else f"{message} at t = {problem.clock(time)}",
                time=problem.origin + time,
                samples=samples,
                statistics=counted.statistics(steps, rejected),
            )

        if times.size == 1:
            emit_sample(0, ahead.y0)
            return solution("success", "the last sample time was reached", float(times[0]))
        vector = np.ndim(problem.atol) > 0
        job = {
            **_solve_job(method, properties, sharpness=problem.sharpness is not None),
            "times": times.tolist(),
            "rtol": float(problem.rtol),
            "atol": None if vector else float(problem.atol),
            "step": _float(problem.step),
            "max_step": _float(problem.max_step),
            "max_steps": int(problem.max_steps or _MAX_STEPS),
        }
        callbacks = Callbacks(
            counted.rhs,
            emit_sample,
            counted.jvp() if job["jvp"] else None,
            counted.sharpness if job["sharpness"] else None,
        )
        try:
            atol = np.asarray(problem.atol) if vector else None
            self._session.warm(job)
            counted.start_clock()
            ending = self._session.solve(job, ahead.y0, atol, callbacks)
        except SolveStopped as stop:
            return solution(stop.status, str(stop), counted.last_t)
        except WorkerError as error:
            return solution("step_failure", str(error).rstrip("."), counted.last_t)
        except EngineError:
            raise
        except BaseException as error:
            so_far = solution("step_failure", f"{type(error).__name__} was raised", counted.last_t)
            error.ode_solution = so_far  # type: ignore[attr-defined]
            error.add_note(
                f"{self.name} {method}: {so_far.message}; {samples} of {problem.times.size} samples are done"
            )
            raise
        counts = (before[0] + int(ending["steps"]), before[1] + int(ending["rejected_steps"]))
        code = ending["retcode"]
        if code == "MaxIters" and problem.max_steps is not None:
            limit = f"the limit of {problem.max_steps} steps was reached"
            return solution("max_steps", limit, ending["time"], *counts)
        if code != "Success":
            return solution("step_failure", _RETCODES.get(code, code), ending["time"], *counts)
        return solution("success", "the last sample time was reached", float(times[-1]), *counts)

    def warm(self, method: str) -> None:
        """See `Engine.warm`: compiles the method, for steps that it chooses itself if it can."""
        require_method(self, method)
        properties = self.methods[method]
        with _as_engine_error():
            self._session.warm(
                {
                    **_solve_job(method, properties, sharpness=True),
                    "rtol": 1e-3,
                    "atol": 1e-3,
                    "step": 0.5 if properties.step == "required" else None,
                    "max_step": None,
                    "max_steps": _MAX_STEPS,
                }
            )

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
        """See `Engine.solve_noisy`; with StochasticDiffEq.jl."""
        require_noise_fit(self, method, factor=factor, y0=y0, time=time, step=step, seeds=seeds)
        self.require_noise_ready()
        job = {
            "do": "noisy",
            "method": method,
            "time": float(time),
            "step": float(step),
            "seeds": [int(seed) for seed in seeds],
            "diagonal": factor.ndim == 1,
        }
        done = 0

        def keep(index: int, state: Array) -> None:
            nonlocal done
            on_member(index, state)
            done += 1

        with _as_engine_error():
            arrays = {"factor": np.ascontiguousarray(factor, dtype=np.float64)}
            self._session.warm(job)
            ending = self._session.noisy(job, y0, arrays, Callbacks(drift, keep))
        code = ending["retcode"]
        if code != "Success":
            raise EngineError(
                f"diffeq {method} stopped on path {done} of {len(seeds)}: {_RETCODES.get(code, code)}; a smaller step "
                "may help"
            )

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
        step: float | None = None,
    ) -> LawsSolution:
        """See `Engine.solve_laws`; inside the worker."""
        require_method(self, method)
        require_step_fits(self, method, step)
        arrays = {"m": m, "b": b, "kappa": kappa, "force": force, "y0": y0, "times": times}
        job = {
            "do": "laws",
            "method": method,
            "order": order,
            "rtol": float(rtol),
            "atol": float(atol),
            "step": _float(step),
        }
        with _as_engine_error():
            self._session.warm(job)
            ending = self._session.laws(job, arrays)
        code = ending["retcode"]
        if code != "Success":
            raise EngineError(
                f"diffeq {method} stopped: {_RETCODES.get(code, code)} at t = {ending['time']:.6g}"
            )
        return LawsSolution(
            ending["arrays"]["charges"], int(ending["rhs_evaluations"]), int(ending["jvp_evaluations"])
        )


def _solve_job(method: str, properties: Method, *, sharpness: bool) -> dict[str, Any]:
    """What of a job the method decides on. No product with the Jacobian is left to Julia (docs/bridge.md rule 13)."""
    return {
        "do": "solve",
        "method": method,
        "kind": properties.kind,
        "jvp": properties.jvp,
        "sharpness": sharpness and properties.sharpness,
    }


def _float(value: float | None) -> float | None:
    """Of a NumPy number or a whole one: JSON takes the one not, and for the other Julia compiles anew."""
    return None if value is None else float(value)


@contextmanager
def _as_engine_error() -> Iterator[None]:
    """Where there is no solution to record it in, a worker's failure is an error."""
    try:
        yield
    except WorkerError as error:
        raise EngineError(f"engine 'diffeq': {error}") from None


_RETCODES = {
    "MaxIters": f"MaxIters: {_MAX_STEPS:.0e} steps were not enough",
    "Unstable": "Unstable: the solution became non-finite",
    "DtNaN": "DtNaN: the step is not a number",
    "DtLessThanMin": "DtLessThanMin: no step is small enough for the tolerance",
}
