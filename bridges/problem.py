"""What an engine is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bridges.errors import EngineError
from bridges.limits import require_limits, require_times
from bridges.vectors import Vector, copied, is_finite, is_tensor, like

Array: TypeAlias = NDArray[np.float64]
Rhs: TypeAlias = Callable[[float, Vector, Vector], None]
"""`rhs(t, y, dy)` writes the derivative at (t, y) into `dy`; `y` is not to be written to."""

Jvp: TypeAlias = Callable[[float, Vector, Vector, Vector], None]
"""`jvp(t, y, v, out)` writes the product of the Jacobian at (t, y) with v into `out`."""

Sharpness: TypeAlias = Callable[[float, Vector, Rhs], float]
"""`sharpness(t, y, rhs)` → spectral radius of the Jacobian at (t, y), by right-hand sides of `rhs`, which counts."""

OnSample: TypeAlias = Callable[[int, float, Vector], None]
"""`on_sample(index, t, y)`; `y` belongs to the engine: copy what must outlive the call."""

FieldDtype: TypeAlias = Literal["float64", "float32"]

Status: TypeAlias = Literal["success", "non_finite", "max_steps", "max_rhs", "max_seconds", "step_failure"]


@dataclass(frozen=True)
class Statistics:
    """What a solve cost.

    Attributes:
        rhs_evaluations: right-hand sides of the method, those of its difference quotients among them.
        rejected_steps: attempts given up for a smaller step.
        wall_seconds: of the whole solve, in seconds; without what an engine compiles before it.
        jvp_evaluations: products by `OdeProblem.jvp`.
        probe_evaluations: right-hand sides that `OdeProblem.sharpness` took.
        rhs_seconds, jvp_seconds: inside the caller's functions, in seconds; probes are in neither.
        spent: by how much right-hand sides and products raised the caller's counters (`OdeProblem.meter`); probes are
            in neither.
    """

    rhs_evaluations: int = 0
    steps: int = 0
    rejected_steps: int = 0
    wall_seconds: float = 0.0
    jvp_evaluations: int = 0
    probe_evaluations: int = 0
    rhs_seconds: float = 0.0
    jvp_seconds: float = 0.0
    spent: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Kept:
    """A place from which a solve can go on: the end of a step.

    Attributes:
        t, y: time and state, on the host whatever the state is.
        samples: how many were given to the callback up to there.
        statistics: of the solve up to there; those of a solve that goes on begin with them, and so do its limits.
        memory: what the method needs beside y to go on as if it had never stopped; without it a multistep method starts
            anew with small steps.
        errors: of the samples, as `OdeSolution.error_estimates`.
    """

    t: float
    y: Array
    samples: int
    statistics: Statistics
    memory: Mapping[str, Array] = field(default_factory=dict)
    errors: Array | None = None


@dataclass(frozen=True)
class OdeProblem:
    """An initial value problem y' = f(t, y), y(times[0]) = y0, wanted at `times`.

    Args:
        rhs: the vector field, in place.
        y0: shape (n,), float64: an array, or a tensor of torch on any device for an engine that takes one
            (`Capabilities.tensors`). All vectors of such a solve are tensors, on its device; of a tensor no copy is
            made here, and it is never written to.
        times: shape (m,), m ≥ 1, strictly increasing; the first is the start.
        field_dtype: what `rhs`, `jvp` and `sharpness` are given and give back, if the state is a tensor. The state
            itself, and what `on_sample` is given, is in float64 always.
        rtol, atol: tolerances on the local error, WRMS norm with weights rtol·|y| + atol; atol a number, or one for
            each entry of y.
        step: the step of a fixed-step method; adaptive methods take none.
        restarts: strictly increasing times at which the field may jump. No step crosses one; methods that cannot
            promise it refuse.
        on_restart: called with i before the first step that starts at or after restarts[i], so that every step sees
            one field from its start to its end.
        max_step: the longest step of an adaptive method; None for no limit.
        jvp: (t, y, v, out) writes the Jacobian's product with v; for implicit methods of engines that take one, which
            without it take difference quotients of the field.
        sharpness: (t, y, rhs) → the Jacobian's spectral radius; for stabilised methods.
        noise: rounding noise of the field relative to its size, for difference quotients; of float64 by default.
        scales: typical size of each entry of the state, for the same; None if all are alike.
        max_steps: at most this many accepted steps; of engine "diffeq" this many attempts.
        max_rhs: at most this many evaluations: right-hand sides, Jacobian products and what `sharpness` takes together.
        max_seconds: at most this much wall time; the clock is read before every evaluation.
        on_step: called after a step, and all samples up to its end, with a function that gives the place; copy the
            place's arrays. Of engines that can go on (`Engine.goes_on`) alone.
        kept: a place that `on_step` was given in an earlier solve of the same problem: this one goes on from there, and
            its first sample is the first that was not given. Of the same engines alone.
        meter: counters of the caller's, which grow with what right-hand sides and products take.
        origin: what the caller's times are ahead of `times`; for messages and for `OdeSolution.time`.

    Raises:
        EngineError: a value that no engine could work with.

    Example:
        >>> import numpy as np
        >>> from bridges import OdeProblem
        >>> def decay(t, y, out):
        ...     out[:] = -y
        >>> problem = OdeProblem(decay, np.ones(3), np.array([0.0, 0.5, 1.0]), rtol=1e-6)
        >>> problem.y0.shape, problem.times.shape, problem.atol
        ((3,), (3,), 1e-09)
    """

    rhs: Rhs
    y0: Vector
    times: Array
    rtol: float = 1e-6
    atol: float | Vector = 1e-9
    step: float | None = None
    restarts: Array | None = None
    on_restart: Callable[[int], None] | None = None
    max_step: float | None = None
    jvp: Jvp | None = None
    sharpness: Sharpness | None = None
    noise: float = float(np.finfo(np.float64).eps)
    scales: Vector | None = None
    max_steps: int | None = None
    max_rhs: int | None = None
    max_seconds: float | None = None
    on_step: Callable[[Callable[[], Kept]], None] | None = None
    kept: Kept | None = None
    meter: Callable[[], tuple[int, ...]] | None = None
    origin: float = 0.0
    field_dtype: FieldDtype = "float64"

    def __post_init__(self) -> None:
        times = require_times(self.times)
        y0 = self.y0.detach() if is_tensor(self.y0) else copied(self.y0)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "y0", y0)
        _require_dtypes(y0, self.field_dtype)
        if y0.ndim != 1 or y0.shape[0] == 0:
            raise EngineError(f"the state must be a vector; its shape is {tuple(y0.shape)}")
        if not is_finite(y0):
            raise EngineError("the state at the start has entries that are not finite")
        if self.restarts is not None and (np.diff(self.restarts) <= 0).any():
            raise EngineError("restarts must increase strictly")
        if np.ndim(self.atol):
            if np.shape(self.atol) != y0.shape:
                raise EngineError(
                    f"atol has shape {tuple(np.shape(self.atol))}; the state has {tuple(y0.shape)}"
                )
            atol: Vector = self.atol if is_tensor(self.atol) else np.asarray(self.atol, dtype=np.float64)
            object.__setattr__(self, "atol", atol)
            if not (is_finite(atol) and float(atol.min()) > 0):
                raise EngineError("atol must be positive numbers")
        require_limits(
            span=float(times[-1] - times[0]),
            rtol=self.rtol,
            atol=self.atol if np.ndim(self.atol) == 0 else None,
            step=self.step,
            max_step=self.max_step,
            max_steps=self.max_steps,
            max_rhs=self.max_rhs,
            max_seconds=self.max_seconds,
        )

    def clock(self, t: float) -> str:
        """A time of this problem's as the caller counts, for a message."""
        if abs(self.origin) > 1e4 * abs(float(self.times[-1] - self.times[0])):
            return f"{self.origin:.6g} + {t:.6g}"
        return f"{self.origin + t:.6g}"

    @property
    def ahead(self) -> OdeProblem:
        """What is still to be solved: from the place that was kept, with its own memory; the problem itself if none."""
        if self.kept is None:
            return self
        times = np.append(self.kept.t, self.times[self.kept.samples :])
        return replace(self, y0=like(self.y0, self.kept.y), times=times)

    @property
    def memory(self) -> Mapping[str, Array]:
        """What the method remembers at the start; nothing unless the solve goes on."""
        return {} if self.kept is None else self.kept.memory


@dataclass(frozen=True)
class OdeSolution:
    """How a solve ended. The states themselves were given to the callback, sample by sample.

    Attributes:
        status: "success", or what stopped the solve; the samples up to `time` are valid in either case.
        time: the time that the integration reached.
        samples: how many of the requested samples were given to the callback.
        error_estimates: per sample, the 2-norm of the method's own estimate of its global error;
            only from methods that have one (step halving).
    """

    engine: str
    method: str
    status: Status
    message: str
    time: float
    samples: int
    statistics: Statistics
    error_estimates: Array | None = None


def _require_dtypes(y0: Vector, field_dtype: str) -> None:
    if field_dtype not in ("float64", "float32"):
        raise EngineError(f"field_dtype must be 'float64' or 'float32'; {field_dtype!r} was given")
    if is_tensor(y0):
        if str(y0.dtype) != "torch.float64":
            raise EngineError(
                f"the state must be a tensor of float64, whatever the field computes in (field_dtype); "
                f"it is one of {str(y0.dtype).removeprefix('torch.')}"
            )
    elif field_dtype != "float64":
        raise EngineError("a field in float32 goes with a state that is a tensor; this one is an array")


class SolveStopped(Exception):  # noqa: N818 (an outcome of the solve, not a defect)
    """A limit was reached, or a value of the field is of no use: the solve ends here, with this status."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status
