"""One loop that drives every embedded method step by step: samples, limits, statistics, failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from threadpoolctl import ThreadpoolController

from bridges.engine import Array, OdeProblem, OdeSolution, OnSample, Rhs, Statistics, Status


class Stepper(Protocol):
    """A method in motion. It calls the right-hand side it was made with and nothing else."""

    @property
    def t(self) -> float:
        """Time reached."""
        ...

    @property
    def steps(self) -> int: ...

    @property
    def rejected_steps(self) -> int: ...

    def advance(self) -> None:
        """One step on. Raises StepFailure if the method cannot."""
        ...

    def at(self, t: float) -> Array:
        """The state at `t` inside the last step, to the method's own accuracy."""
        ...

    def error_at_sample(self) -> float | None:
        """2-norm of the global error estimate at the sample just taken, if the method has one."""
        ...


class StepFailure(Exception):  # noqa: N818 (an outcome, not a defect)
    """The method cannot go on; the text says why."""


class Stop(Exception):  # noqa: N818
    """A limit, or numbers that are not finite: the solve ends here, with this status."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status


class Meter:
    """The right-hand side with a counter, the limits, and a guard against numbers that are not finite."""

    def __init__(self, problem: OdeProblem) -> None:
        self._problem = problem
        self._started = time.perf_counter()
        self.count = 0
        self.last_t = float(problem.times[0])

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def __call__(self, t: float, y: Array, dy: Array) -> None:
        problem = self._problem
        if problem.max_rhs is not None and self.count >= problem.max_rhs:
            raise Stop("max_rhs", f"the limit of {problem.max_rhs} right-hand sides was reached")
        if problem.max_seconds is not None and self.seconds > problem.max_seconds:
            raise Stop("max_seconds", f"the limit of {problem.max_seconds:g} s of wall time was reached")
        self.count += 1
        self.last_t = t
        problem.rhs(t, y, dy)
        if not np.isfinite(dy).all():
            raise Stop("non_finite", "the right-hand side has entries that are not finite")


def drive(
    problem: OdeProblem,
    make_stepper: Callable[[Rhs], Stepper],
    on_sample: OnSample,
    *,
    engine: str,
    method: str,
) -> OdeSolution:
    """Run a stepper over the sample times. See `Engine.solve` for what comes out of a failure."""
    times = problem.times
    meter = Meter(problem)
    stepper: Stepper | None = None
    samples = 0
    errors: list[float] = []

    def solution(status: Status, message: str) -> OdeSolution:
        reached = stepper.t if stepper is not None else float(times[0])
        return OdeSolution(
            engine=engine,
            method=method,
            status=status,
            message=message if status == "success" else f"{message} at t = {meter.last_t:.6g}",
            time=reached,
            samples=samples,
            statistics=Statistics(
                rhs_evaluations=meter.count,
                steps=stepper.steps if stepper is not None else 0,
                rejected_steps=stepper.rejected_steps if stepper is not None else 0,
                wall_seconds=meter.seconds,
            ),
            error_estimates=np.array(errors) if errors else None,
        )

    def hand_out(t: float, y: Array) -> None:
        nonlocal samples
        on_sample(samples, t, y)
        samples += 1
        error = stepper.error_at_sample() if stepper is not None else None
        if error is not None:
            errors.append(error)

    try:
        with _no_blas_threads():
            if times.size > 1:
                stepper = make_stepper(meter)
            hand_out(float(times[0]), problem.y0)
            while samples < times.size:
                assert stepper is not None
                if problem.max_steps is not None and stepper.steps >= problem.max_steps:
                    raise Stop("max_steps", f"the limit of {problem.max_steps} steps was reached")
                stepper.advance()
                while samples < times.size and times[samples] <= stepper.t:
                    hand_out(float(times[samples]), stepper.at(float(times[samples])))
    except Stop as stop:
        return solution(stop.status, str(stop))
    except StepFailure as failure:
        return solution("step_failure", str(failure))
    except BaseException as error:
        so_far = solution("step_failure", f"{type(error).__name__} was raised")
        error.ode_solution = so_far  # type: ignore[attr-defined]
        error.add_note(f"{engine} {method}: {so_far.message}; {samples} of {times.size} samples are done")
        raise
    return solution("success", "the last sample time was reached")


@contextmanager
def _no_blas_threads() -> Iterator[None]:
    """Keep the threads of NumPy's and SciPy's own OpenBLAS asleep while stepping.

    A method's few vector sums gain nothing from them, and between sums they spin on the cores that the
    right-hand side computes on: at n = 1e5 that made gradients three times slower. Only the private copies
    in the two wheels are held back; a BLAS that torch may share is left alone.
    """
    controller = ThreadpoolController()
    own = [
        library.filepath
        for library in controller.lib_controllers
        if library.internal_api == "openblas"
        and {"numpy.libs", "scipy.libs", ".dylibs"} & {*Path(library.filepath).parts}
    ]
    with controller.select(filepath=own).limit(limits=1):
        yield
