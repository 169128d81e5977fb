"""solve: a flow, sample times and tolerances to an xarray dataset. The only door to the bridges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from bridges import (
    FINEST_RTOL,
    Choice,
    Engine,
    OdeProblem,
    OdeSolution,
    choose,
    choose_for_jumps,
    default_rtol,
    get_engine,
    require_options,
    resolve_method,
)
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.flows import Flow, FlowError, IteratedMapFlow, MinibatchFlow, name_and_title
from nm_ode.loss.nonsmooth import kinks
from nm_ode.observers import CHARGES, charge_coordinates
from nm_ode.results.schema import annotate, layout_attrs
from nm_ode.symmetries import ChargeMeter, Symmetry

RECORDABLE = ("loss", "grad_norm", "theta")
_TIGHTER = 10.0


class SolveError(NmOdeError, RuntimeError):
    """The solver gave up or ran into a limit.

    Attributes:
        solution: what was solved up to there, as `solve` would have returned it.
    """

    def __init__(self, message: str, solution: xr.Dataset) -> None:
        super().__init__(message)
        self.solution = solution


def solve(
    flow: Flow,
    t: xr.Dataset | Sequence[float] | NDArray[np.floating],
    *,
    theta0: Tensor | None = None,
    engine: str = "auto",
    method: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    step: float | None = None,
    max_step: float | None = None,
    max_steps: int | None = None,
    max_rhs: int | None = None,
    max_seconds: float | None = None,
    record: Collection[str] = RECORDABLE,
    symmetries: Sequence[Symmetry] = (),
    check: bool = True,
    on_sample: Callable[[int], None] | None = None,
) -> xr.Dataset:
    """Solve a flow at given times; DESIGN.md's `/flows/<name>` group.

    Args:
        flow: the vector field.
        t: sample times in flow time, the first the start; or a run of `train`, whose saved times and start (the
            optimiser's whole state, where the flow has use for it) are taken.
        theta0: where to start; the run's start, or the problem's, if None.
        engine: "auto" (by smoothness, stiffness and tolerance, of what is embedded; attribute `choice` says why),
            "sundials", "scipy", or "diffeq" (DifferentialEquations.jl).
        method: one of the engine's; its default if None. "diffeq" chooses if it is None or "auto". Not with
            engine "auto".
        rtol, atol: tolerances of the local error. None: rtol by the smoothness of the flow (1e-6 or, with
            kinks, 1e-3) and atol = rtol/1000.
        step: the step of a fixed-step method, in flow time.
        max_step: the longest step of an adaptive one.
        max_steps, max_rhs, max_seconds: limits on one solve.
        record: what to keep of each sample, of "loss", "grad_norm", "theta".
        symmetries: of which to record the charges too.
        check: solve once more with rtol and atol ten times tighter (rtol no finer than float64 holds) and record
            the distance as `solver_error` (THEORY.md §5). Midpoint and RK8 take their own step halving instead.
        on_sample: called with the number of samples done, for a progress bar.

    Returns:
        Dimensions `time`, `param`, `charge_index`; variables as recorded, and `solver_error` if checked.
        Attributes: see DESIGN.md; `gradient_evaluations` counts the first solve,
        `check_gradient_evaluations` the second, `probe_rhs_evaluations` the measurement of the stiffness.

    Raises:
        SolveError: not solved to the end; its attribute `solution` has what was.
        FlowError: a modified flow on a run whose learning rate changes.
        EngineError: unknown engine or method, or options that do not go together.
        Exception: whatever the loss raises comes out as itself, with the attribute `solution`.
    """
    unknown = set(record) - set(RECORDABLE)
    if unknown:
        raise ArgumentError(
            f"record: unknown {', '.join(sorted(unknown))}; known are {', '.join(RECORDABLE)}"
        )
    if check and "theta" not in record:
        raise ArgumentError(
            "check compares two solutions state by state: record 'theta' too, or set check=False"
        )
    require_options(engine, method, step)
    times, state = _times_and_start(flow, t, theta0)
    start = _to_numpy(state)
    scale = flow.scale(state)
    scales = None if scale is None else _to_numpy(scale)
    field = _Field(flow)
    found = kinks(flow.problem)
    plan = _plan(field, found, start, scales, times, engine, method, rtol, step)
    used_rtol = plan.choice.rtol
    used_atol = 1e-3 * used_rtol if atol is None else atol
    probe_evaluations = field.take_count()
    ode = OdeProblem(
        rhs=field.rhs,
        y0=start,
        times=times,
        rtol=used_rtol,
        atol=used_atol if scales is None else used_atol * scales,
        step=plan.choice.step,
        restarts=_snapped(flow.jumps, times) if isinstance(flow, MinibatchFlow) else None,
        on_restart=field.restart if isinstance(flow, MinibatchFlow) else None,
        max_step=max_step,
        max_steps=max_steps,
        jvp=field.jvp if hasattr(flow, "jvp") else None,
        sharpness=_Sharpness(field, scales),
        max_rhs=max_rhs,
        max_seconds=max_seconds,
    )
    kept = _Kept(flow, times, record, symmetries, on_sample)
    name, title = name_and_title(flow, t.attrs["batch_size"] if isinstance(t, xr.Dataset) else "full")
    attrs = {
        "flow": name,
        "title": title,
        "expected_order": flow.expected_order,
        "engine": plan.choice.engine,
        "engine_version": plan.engine.version,
        "method": plan.choice.method,
        "choice": plan.choice.reason,
        "kinks": ", ".join(found),
        "rtol": used_rtol,
        "atol": used_atol,
        "gradients_per_rhs": flow.gradients_per_rhs,
        "hvps_per_rhs": flow.hvps_per_rhs,
        "third_derivatives_per_rhs": flow.third_derivatives_per_rhs,
        **({"map_order": flow.order} if isinstance(flow, IteratedMapFlow) else {}),
        "probe_rhs_evaluations": probe_evaluations,
        **({"rtol_requested": rtol} if rtol is not None else {}),
        **({"step": plan.choice.step} if plan.choice.step is not None else {}),
        **layout_attrs(flow.problem.layout),
    }

    def dataset(solution: OdeSolution) -> xr.Dataset:
        made = kept.dataset()
        made.attrs = {**attrs, **_solution_attrs(solution, flow)}
        return annotate(made)

    try:
        solution = plan.engine.solve(ode, plan.choice.method, kept)
        # What a stabilised method asked of the sharpness is no right-hand side of the solver's.
        attrs["probe_rhs_evaluations"] = probe_evaluations + max(
            0, field.take_count() - solution.statistics.rhs_evaluations
        )
    except BaseException as error:
        so_far = getattr(error, "ode_solution", None)
        if so_far is not None:
            error.solution = dataset(so_far)  # type: ignore[attr-defined]
        raise
    result = dataset(solution)
    if solution.status != "success":
        raise SolveError(f"{title}: {_failure(solution, _non_finite_remedy(flow, t))}", result)
    if check:
        try:
            _add_check(result, flow, plan, ode, solution)
        except BaseException as error:
            error.solution = result  # type: ignore[attr-defined]
            raise
    return annotate(result)


@dataclass(frozen=True)
class _Plan:
    engine: Engine
    choice: Choice


class _Field:
    """The flow as the bridges want it: numpy in and out, counted."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._in_force = flow
        self._count = 0

    def rhs(self, t: float, y: NDArray[np.float64], dy: NDArray[np.float64]) -> None:
        self._count += 1
        dy[:] = _to_numpy(self._in_force.rhs(t, _to_state(self.flow, y)))

    def jvp(self, t: float, y: NDArray[np.float64], v: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        flow: Any = self._in_force
        out[:] = _to_numpy(flow.jvp(t, _to_state(self.flow, y), _to_state(self.flow, v)))

    def restart(self, step: int) -> None:
        assert isinstance(self.flow, MinibatchFlow)
        self._in_force = self.flow.during(step)

    def take_count(self) -> int:
        count, self._count = self._count, 0
        return count


class _Kept:
    """Reduces each sample to what is recorded and lets the rest go."""

    def __init__(
        self,
        flow: Flow,
        times: NDArray[np.float64],
        record: Collection[str],
        symmetries: Sequence[Symmetry],
        on_sample: Callable[[int], None] | None,
    ) -> None:
        self._flow, self._times, self._on_sample = flow, times, on_sample
        layout = flow.problem.layout
        self._meter = ChargeMeter(layout, symmetries) if symmetries else None
        shapes = {"theta": (times.size, layout.size)}
        self._values = {name: np.empty(shapes.get(name, times.size)) for name in record}
        if self._meter is not None:
            self._values["charge"] = np.empty((times.size, self._meter.count))
        self._samples = 0

    def __call__(self, index: int, t: float, y: NDArray[np.float64]) -> None:
        theta, problem, values = _theta_in(self._flow, y), self._flow.problem, self._values
        if "theta" in values:
            values["theta"][index] = theta.numpy()
        if self._meter is not None:
            values["charge"][index] = self._meter.charge(theta).numpy()
        if "grad_norm" in values:
            loss, gradient = problem.loss_and_grad(theta)
            values["grad_norm"][index] = float(gradient.norm())
        elif "loss" in values:
            loss = problem.loss(theta)
        if "loss" in values:
            values["loss"][index] = float(loss)
        self._samples = index + 1
        if self._on_sample is not None:
            self._on_sample(self._samples)

    def dataset(self) -> xr.Dataset:
        """The samples that are complete: an exception may have come in the middle of one."""
        done = slice(self._samples)
        second = {"theta": "param", "charge": CHARGES}
        return xr.Dataset(
            {
                name: (("time", second[name]) if name in second else "time", values[done])
                for name, values in self._values.items()
            },
            coords={
                "time": self._times[done],
                **(charge_coordinates(self._meter.symmetries) if self._meter is not None else {}),
            },
        )


def _times_and_start(
    flow: Flow, t: xr.Dataset | Sequence[float] | NDArray[np.floating], theta0: Tensor | None
) -> tuple[NDArray[np.float64], Tensor]:
    memory = None
    if isinstance(t, xr.Dataset):
        for name in ("saved_time", "theta"):
            if name not in t.variables:
                raise ArgumentError(f"t: a dataset without {name!r} is not a run of nm_ode.train")
        times = np.asarray(t["saved_time"], dtype=np.float64)
        if flow.depends_on_lr and "lr" in t and (t["lr"] != t["lr"][0]).any():
            raise FlowError(
                f"{flow.title} is that of a constant lr; this run's lr goes from {float(t['lr'].max()):g} to "
                f"{float(t['lr'].min()):g}: solve gradient flow, or train without a schedule"
            )
        if theta0 is None:
            theta0 = torch.from_numpy(t["theta"].isel(saved_step=0).values.copy())
            if "initial_state" in t:
                memory = torch.from_numpy(t["initial_state"].values.copy())
    else:
        times = np.asarray(t, dtype=np.float64)
    if theta0 is None:
        theta0 = flow.problem.theta0

    def placed(part: Tensor) -> Tensor:
        return part.to(device=flow.problem.device, dtype=flow.problem.dtype)

    return times, flow.state_from(placed(theta0), None if memory is None else placed(memory))


def _snapped(jumps: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jumps at a sample time but for rounding are at that time."""
    nearest = times[np.abs(jumps[:, None] - times).argmin(axis=1)]
    return np.where(np.isclose(jumps, nearest, rtol=1e-9, atol=0.0), nearest, jumps)


def _plan(
    field: _Field,
    found: tuple[str, ...],
    start: NDArray[np.float64],
    scales: NDArray[np.float64] | None,
    times: NDArray[np.float64],
    engine: str,
    method: str | None,
    rtol: float | None,
    step: float | None,
) -> _Plan:
    if engine == "auto" and isinstance(field.flow, MinibatchFlow):
        choice = choose_for_jumps(kinks=found, piece=field.flow.time_per_step)
        return _Plan(get_engine(choice.engine), choice)
    named = None if engine == "auto" else get_engine(engine)
    if named is None or (named.capabilities.recommends and method in (None, "auto") and step is None):
        horizon = float(times[-1] - times[0])
        sharpness = 0.0 if found else spectral_radius(field, float(times[0]), start, scales)
        how = choose if named is None else named.recommend
        recommended = how(kinks=found, stiffness=sharpness * horizon, rtol=rtol)
        if recommended is not None:
            return _Plan(named or get_engine(recommended.engine), recommended)
    assert named is not None
    used_rtol = default_rtol(found) if rtol is None else rtol
    used_method = resolve_method(named, method, step)
    return _Plan(named, Choice(engine, used_method, used_rtol, "named by the caller", step))


def require_ready(engine: str) -> None:
    """Raises EngineError, with the remedy, if the engine lacks something to start; starts nothing."""
    if engine != "auto":
        get_engine(engine).require_ready()


def spectral_radius(
    field: _Field,
    t: float,
    y: NDArray[np.float64],
    scales: NDArray[np.float64] | None = None,
    iterations: int = 6,
    seed: int = 0,
) -> float:
    """|λ|_max of the field's Jacobian at (t, y) by power iteration on difference quotients.

    For gradient flow it is the sharpness. `iterations` + 1 right-hand sides; good to some ten percent,
    which is enough to tell stiff from not. Eigenvalues do not see `scales`; the difference quotient does, which must
    not push a second moment of 1e-12 below zero.
    """
    return _power_iteration(field, t, y, scales, None, iterations, seed)[0]


def _power_iteration(
    field: _Field,
    t: float,
    y: NDArray[np.float64],
    scales: NDArray[np.float64] | None,
    direction: NDArray[np.float64] | None,
    iterations: int,
    seed: int = 0,
) -> tuple[float, NDArray[np.float64] | None]:
    """The radius and the direction that it was found along, to start from near by; None for no radius."""
    precision = np.finfo(np.float32 if field.flow.problem.dtype == torch.float32 else np.float64).eps
    if scales is None:
        scales = np.ones(1)
    size = float(np.sqrt(precision)) * max(1.0, float(np.linalg.norm(y / scales)))
    at_y, moved = np.empty_like(y), np.empty_like(y)
    field.rhs(t, y, at_y)
    if direction is None:
        # The gradient itself leans towards the steep directions; a little noise keeps every direction in play.
        direction = at_y / scales
        direction = direction / max(float(np.linalg.norm(direction)), np.finfo(float).tiny)
        direction = direction + 0.1 * np.random.default_rng(seed).standard_normal(y.size) / np.sqrt(y.size)
    radius = 0.0
    for _ in range(iterations):
        direction = direction / np.linalg.norm(direction)
        field.rhs(t, y + size * direction * scales, moved)
        direction = (moved - at_y) / scales / size
        radius = float(np.linalg.norm(direction))
        if not radius > 0:
            return 0.0, None
    return radius, direction


class _Sharpness:
    """A bound on the spectral radius along a solve, each time from the direction that was found before."""

    def __init__(self, field: _Field, scales: NDArray[np.float64] | None) -> None:
        self._field, self._scales = field, scales
        self._direction: NDArray[np.float64] | None = None

    def __call__(self, t: float, y: NDArray[np.float64]) -> float:
        fresh = self._direction is None
        radius, self._direction = _power_iteration(
            self._field, t, y.copy(), self._scales, self._direction, iterations=8 if fresh else 2
        )
        return 1.2 * radius


def _add_check(result: xr.Dataset, flow: Flow, plan: _Plan, ode: OdeProblem, solution: OdeSolution) -> None:
    if solution.error_estimates is not None:
        result["solver_error"] = ("time", solution.error_estimates)
        result.attrs["check"] = "difference to the same method at twice the step"
        return
    states = result["theta"].values
    errors = np.full(len(states), np.nan)

    def distance(index: int, t: float, y: NDArray[np.float64]) -> None:
        errors[index] = np.linalg.norm(_theta_in(flow, y).numpy() - states[index])

    tighter = replace(ode, rtol=max(ode.rtol / _TIGHTER, FINEST_RTOL), atol=ode.atol / _TIGHTER)
    checked = plan.engine.solve(tighter, plan.choice.method, distance)
    result["solver_error"] = ("time", errors)
    atol = result.attrs["atol"] / _TIGHTER
    result.attrs["check"] = f"difference to the same method at rtol {tighter.rtol:g}, atol {atol:g}"
    result.attrs["check_status"] = checked.status
    result.attrs["check_rhs_evaluations"] = checked.statistics.rhs_evaluations
    if checked.status != "success":
        result.attrs["check"] += f" (stopped: {_failure(checked)})"


def _solution_attrs(solution: OdeSolution, flow: Flow) -> dict[str, str | int | float]:
    statistics = solution.statistics
    return {
        "status": solution.status,
        "message": solution.message,
        "rhs_evaluations": statistics.rhs_evaluations,
        "gradient_evaluations": statistics.rhs_evaluations * flow.gradients_per_rhs,
        "hvp_evaluations": statistics.rhs_evaluations * flow.hvps_per_rhs,
        "third_derivative_evaluations": statistics.rhs_evaluations * flow.third_derivatives_per_rhs,
        "steps": statistics.steps,
        "rejected_steps": statistics.rejected_steps,
        "wall_seconds": statistics.wall_seconds,
    }


_REMEDIES = {
    "non_finite": "the loss overflows on this path: check the data's scale, or tighten rtol",
    "max_steps": "raise max_steps, or loosen rtol",
    "max_rhs": "raise max_rhs, or loosen rtol",
    "max_seconds": "raise max_seconds, or loosen rtol",
    "step_failure": "loosen rtol and atol, or name another engine and method",
}


def _non_finite_remedy(flow: Flow, t: object) -> str:
    if not (isinstance(flow, IteratedMapFlow) and flow.optimizer.multiscale):
        return _REMEDIES["non_finite"]
    if isinstance(t, xr.Dataset) and t.attrs.get("warm_start"):
        return "a step of the solver took a second moment below zero: tighten rtol"
    return (
        "differences do not follow the optimiser's first steps, and take its second moment below zero: start warm "
        "(state0 of train, warm_steps of a case)"
    )


def _failure(solution: OdeSolution, non_finite_remedy: str = _REMEDIES["non_finite"]) -> str:
    remedy = non_finite_remedy if solution.status == "non_finite" else _REMEDIES[solution.status]
    return f"{solution.engine} {solution.method} stopped: {solution.message}; {remedy}"


def _theta_in(flow: Flow, y: NDArray[np.float64]) -> Tensor:
    """theta in an engine's state, in float64 on the CPU whatever the problem computes in."""
    return flow.theta_in(torch.from_numpy(y.copy()))


def _to_state(flow: Flow, y: NDArray[np.float64]) -> Tensor:
    # Engines hand out arrays that are read-only, reused or freed later, and the model's parameters will be views
    # of what they are given: so it is a copy.
    return torch.from_numpy(y.copy()).to(device=flow.problem.device, dtype=flow.problem.dtype)


def _to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
