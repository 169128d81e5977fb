"""The loop over the steps of an embedded method: samples, limits, statistics, failures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from threadpoolctl import ThreadpoolController

from bridges.counted import CountedField
from bridges.engine import Engine
from bridges.options import require_fit
from bridges.problem import (
    Kept,
    OdeProblem,
    OdeSolution,
    OnSample,
    Rhs,
    SolveStopped,
    Statistics,
    Status,
)
from bridges.vectors import Vector, on_host


class Stepper(Protocol):
    """A method with its state between two steps. It evaluates the right-hand side that it was made with.

    One that needs more than time and state to go on as if it had never stopped has a method `memory() -> dict[str,
    Array]`, and finds what that gave in the `memory` of the problem that it is made with. One that is part of a cycle
    of references has a method `release()`, which ends it: else its vectors would be held beside those of the next.
    """

    @property
    def t(self) -> float:
        """Time reached."""
        ...

    @property
    def steps(self) -> int: ...

    @property
    def rejected_steps(self) -> int: ...

    def advance(self) -> None:
        """Take one step. Raises StepFailure if the method cannot."""
        ...

    def at(self, t: float) -> Vector:
        """The state at `t` inside the last step, to the method's own accuracy."""
        ...

    def error_at_sample(self) -> float | None:
        """2-norm of the global error estimate at the sample just taken, if the method has one."""
        ...


class StepFailure(Exception):  # noqa: N818 (an outcome of the solve, not a defect)
    """The method cannot take another step; the text says why."""


class SteppedEngine(Engine):
    """An engine whose methods advance step by step: a subclass gives `stepper` instead of `solve`."""

    goes_on = True

    @abstractmethod
    def stepper(self, problem: OdeProblem, method: str, rhs: Rhs) -> Stepper:
        """A stepper at problem.times[0] that evaluates `rhs`, which counts and keeps the limits, not problem.rhs."""

    def stepper_of(self, problem: OdeProblem, method: str, counted: CountedField) -> Stepper:
        """As `stepper`, for methods that ask for more of the field than right-hand sides."""
        return self.stepper(problem, method, counted.rhs)

    def solve(self, problem: OdeProblem, method: str, on_sample: OnSample) -> OdeSolution:
        """See `Engine.solve`."""
        require_fit(self, problem, method)
        self.require_ready()
        return integrate(
            problem,
            lambda counted: self.stepper_of(problem.ahead, method, counted),
            on_sample,
            engine=self.name,
            method=method,
        )


def integrate(
    problem: OdeProblem,
    make_stepper: Callable[[CountedField], Stepper],
    on_sample: OnSample,
    *,
    engine: str,
    method: str,
) -> OdeSolution:
    """Take steps past each sample time in turn. See `Engine.solve` for what a failure gives."""
    times, kept = problem.times, problem.kept
    counted = CountedField(problem)
    stepper: Stepper | None = None
    samples = 0 if kept is None else kept.samples
    reached = float(times[0] if kept is None else kept.t)  # by a step that was looked at
    errors: list[float] = [] if kept is None or kept.errors is None else kept.errors.tolist()

    def statistics() -> Statistics:
        before = Statistics() if kept is None else kept.statistics
        return counted.statistics(
            before.steps + (stepper.steps if stepper is not None else 0),
            before.rejected_steps + (stepper.rejected_steps if stepper is not None else 0),
        )

    def place() -> Kept:
        assert stepper is not None
        memory = stepper.memory() if hasattr(stepper, "memory") else {}
        y, found = on_host(stepper.at(stepper.t)), np.array(errors) if errors else None
        return Kept(stepper.t, y, samples, statistics(), memory, found)

    def solution(status: Status, message: str) -> OdeSolution:
        return OdeSolution(
            engine=engine,
            method=method,
            status=status,
            message=message if status == "success" else f"{message} at t = {problem.clock(counted.last_t)}",
            time=problem.origin + reached,
            samples=samples,
            statistics=statistics(),
            error_estimates=np.array(errors) if errors else None,
        )

    def emit_sample(t: float, y: Vector) -> None:
        nonlocal samples
        on_sample(samples, t, y)
        samples += 1
        error = stepper.error_at_sample() if stepper is not None else None
        if error is not None:
            errors.append(error)

    try:
        with _no_blas_threads():
            if times.size > max(samples, 1):
                stepper = make_stepper(counted)
            if samples == 0:
                emit_sample(float(times[0]), problem.y0)
            while samples < times.size:
                assert stepper is not None
                if problem.max_steps is not None and statistics().steps >= problem.max_steps:
                    raise SolveStopped("max_steps", f"the limit of {problem.max_steps} steps was reached")
                stepper.advance()
                counted.require_finite()
                reached = stepper.t
                while samples < times.size and times[samples] <= stepper.t:
                    emit_sample(float(times[samples]), stepper.at(float(times[samples])))
                if problem.on_step is not None:
                    problem.on_step(place)
    except SolveStopped as stop:
        return solution(stop.status, str(stop))
    except StepFailure as failure:
        return solution("step_failure", str(failure))
    except BaseException as error:
        so_far = solution("step_failure", f"{type(error).__name__} was raised")
        error.ode_solution = so_far  # type: ignore[attr-defined]
        error.add_note(f"{engine} {method}: {so_far.message}; {samples} of {times.size} samples are done")
        raise
    else:
        return solution("success", "the last sample time was reached")
    finally:
        if stepper is not None and hasattr(stepper, "release"):
            stepper.release()


@contextmanager
def _no_blas_threads() -> Iterator[None]:
    """Limit NumPy's and SciPy's own OpenBLAS to one thread while stepping.

    A method's few vector sums gain nothing from more, and between sums the threads busy-wait on the cores that the
    right-hand side computes on: at n = 1e5 that made gradients three times slower. Only the private copies in the two
    wheels are limited; a BLAS that torch may share is not.
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
