"""solve: a flow, sample times and tolerances to an xarray dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from bridges import AUTO, OdeProblem, OdeSolution, Statistics
from bridges.vectors import is_finite
from nm_ode.arguments import dtype_name
from nm_ode.errors import ArgumentError
from nm_ode.flows import Flow, beside_a_run
from nm_ode.loss.nonsmooth import kinks
from nm_ode.loss.spent import Spent
from nm_ode.modes import in_own_modes
from nm_ode.observers import (
    Losses,
    Norms,
    Observer,
    Sketch,
    Trajectory,
    require_observers,
    sketch_in_place_of_theta,
)
from nm_ode.observers.oscillation import Oscillations
from nm_ode.parameters import Layout
from nm_ode.required import as_flag
from nm_ode.results import SolveInfo, annotate, write
from nm_ode.results.checkpoints import Checkpoint, as_checkpoint
from nm_ode.solving.check import Seen, Solved
from nm_ode.solving.check import check as check_solution
from nm_ode.solving.described import options_of
from nm_ode.solving.errors import SolveError, failure
from nm_ode.solving.field import Array, Field
from nm_ode.solving.keeping import KeptSolve
from nm_ode.solving.memory import let_go, require_room
from nm_ode.solving.options import names, options, require_flow
from nm_ode.solving.plan import Plan
from nm_ode.solving.plan import plan as plan_solve
from nm_ode.solving.samples import Samples
from nm_ode.solving.start import start_of
from nm_ode.solving.stiffness import SharpnessBound
from nm_ode.solving.tolerances import rtol_floor, settled_rtol

_MOST_OF_VECTORS = 2**22  # numbers of all samples: of each a flow's own observers may record several vectors

# The norm first: it has the loss from the same pass.
_RECORDABLE: dict[str, type[Observer]] = {"grad_norm": Norms, "loss": Losses, "theta": Trajectory}


@in_own_modes
def solve(
    flow: Flow,
    t: xr.Dataset | Sequence[float] | NDArray[np.floating],
    *,
    theta0: Tensor | NDArray[np.floating] | Sequence[float] | None = None,
    engine: str | None = AUTO,
    method: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    step: float | None = None,
    max_step: float | None = None,
    max_steps: int | None = None,
    max_rhs: int | None = None,
    max_seconds: float | None = None,
    record: Collection[str] = tuple(_RECORDABLE),
    observe: Sequence[Observer] = (),
    check: bool = True,
    on_sample: Callable[[int], None] | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Solve a flow at given times: `/flows/<name>` of docs/design.md (docs/theory.md §5, §6).

    Args:
        flow: the vector field.
        t: sample times in flow time, the first the start; or a run of `train`, whose saved times and start (the
            optimiser's whole state, where the flow's state contains it) are taken.
        theta0: where to start; the run's start, or the problem's, if None.
        engine: "auto" (by smoothness, stiffness and tolerance, by size and device, of what is embedded; `choice` says
            why), or a registered engine: "sundials", "scipy", "torch" (the state stays where the problem computes),
            "diffeq" (DifferentialEquations.jl).
        method: one of the engine's; its default if None. An engine that recommends methods does so if it is None or
            "auto". Not with engine "auto".
        rtol, atol: tolerances of the local error. None: rtol by the smoothness of the flow (1e-6 or, with
            kinks, 1e-3) and atol = rtol/1000.
        step: the step of a fixed-step method, in flow time.
        max_step: the longest step of an adaptive one.
        max_steps, max_rhs, max_seconds: limits on one solve; `max_rhs` on right-hand sides, Jacobian products and
            probes of the sharpness together.
        record: what to keep of each sample, of "loss", "grad_norm", "theta".
        observe: what else to record, such as `Charges(find_symmetries(…))` or an observer of your own; a `Sketch` among
            them stands in for theta.
        check: solve once more with rtol and atol ten times tighter (rtol no finer than rounding lets it be) and record
            the distance as `solver_error` (docs/theory.md §5), NaN where that says nothing (`check_verdict` of the
            record). Methods with a fixed step take their own step halving.
        on_sample: called with the number of samples done, for a progress bar.
        checkpoint: a file in which the solve, its check included, is kept while it runs. If it is cut off, the same
            call goes on from there, to the same solution within its tolerance; `restarts` counts how often.

    Returns:
        Dimensions `time`, `param` and those of the observers; variables as recorded, and `solver_error` if checked.
        `nm_ode.solve_info` gives the typed record of the solve: `gradient_evaluations` counts the first solve,
        `check_rhs_evaluations` the second, `probe_rhs_evaluations` the measurement of the stiffness. Jacobian products
        of implicit methods are counted beside (`jvp_evaluations`, `gradient_equivalents`).

    Raises:
        SolveError: not solved to the end; its attribute `solution` has what was.
        ArgumentError: an unknown name in `record`, what is no observer, or a method with more vectors than memory.
        FlowError: a modified flow on a run whose learning rate changes.
        EngineError: unknown engine or method, options that do not go together, values or times that no engine takes,
            or an rtol below what the rounding of the field holds.
        Exception: whatever the loss raises comes out as itself, with the attribute `solution`.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> flow = nm_ode.GradientFlow(problem)
        >>> solution = nm_ode.solve(flow, [0.0, 0.5, 1.0], engine="scipy", method="DOP853", rtol=1e-8)
        >>> dict(solution.theta.sizes), float(solution.solver_error[-1]) < 1e-6
        ({'time': 3, 'param': 11}, True)
    """
    require_flow(flow)
    kept_in = as_checkpoint(checkpoint)
    recorded, checked = names(record, "record", _RECORDABLE), as_flag(check, "check")
    others = require_observers(observe)
    sketch = sketch_in_place_of_theta(others)
    if sketch is not None:
        recorded = tuple(name for name in recorded if name != "theta")
    elif checked and "theta" not in recorded:
        raise ArgumentError(
            "check compares two solutions state by state: record 'theta' too, or set check=False, or observe a Sketch"
        )
    observers = [*(kind() for key, kind in _RECORDABLE.items() if key in recorded), *others]
    asked = options(
        engine,
        method,
        rtol=rtol,
        atol=atol,
        step=step,
        max_step=max_step,
        max_steps=max_steps,
        max_rhs=max_rhs,
        max_seconds=max_seconds,
    )
    asked.require(flow.problem.dtype)
    problem, beginning = flow.problem, start_of(flow, t, theta0)
    flow, expected = beginning.flow, beginning.expected
    bias = None if expected is None else expected.bias
    times, scale = beginning.times, flow.scale(beginning.state)
    asked.require(flow.problem.dtype, span=float(times[-1] - times[0]))
    found = kinks(problem)
    floor = rtol_floor(flow, problem)
    settled, why = settled_rtol(asked.rtol, floor, found)
    field = Field(flow, floor.noise)
    plan = plan_solve(
        field,
        found,
        beginning.state,
        scale,
        times,
        engine=asked.engine,
        method=asked.method,
        rtol=settled,
        step=asked.step,
    )
    used_atol = 1e-3 * plan.choice.rtol if asked.atol is None else asked.atol
    probes = field.take_count()
    require_room(plan.engine, plan.choice.method, beginning.state)
    start, scales = plan.given(beginning.take_state()), None if scale is None else plan.given(scale)
    ode = OdeProblem(
        rhs=field.rhs,
        y0=start,
        times=times,
        rtol=plan.choice.rtol,
        atol=used_atol if scales is None else used_atol * scales,
        step=plan.choice.step,
        restarts=None if flow.jumps is None else _snapped(flow.jumps, times),
        on_restart=None if flow.jumps is None else field.enter,
        max_step=asked.max_step,
        max_steps=asked.max_steps,
        jvp=field.jvp if _has_product(flow, plan) else None,
        # An engine that takes tensors measures it in vectors that it has.
        sharpness=None if plan.engine.capabilities.tensors else SharpnessBound(field.noise, scales),
        field_dtype=plan.field_dtype(problem.dtype),
        noise=field.noise,
        scales=scales,
        max_rhs=asked.max_rhs,
        max_seconds=asked.max_seconds,
        meter=lambda: problem.spent.counts,
    )
    name, title, beside = beside_a_run(
        flow, full_batch=beginning.run is None or beginning.run.grid.is_full_batch
    )
    info = SolveInfo(
        flow=name,
        title=title,
        options=options_of(flow),
        beside=beside,
        batch_share=None if expected is None or expected.share == 1 else expected.share,
        batch_bias=None if bias is None else bias.distance,
        batch_bias_error=None if bias is None else bias.standard_error,
        expected_order=flow.expected_order,
        map_order=flow.map_order,
        engine=plan.choice.engine,
        engine_version=plan.engine.version,
        method=plan.choice.method,
        choice=plan.choice.reason + why,
        kinks=found,
        foreign_gradient=flow.problem.foreign_gradient,
        rtol=plan.choice.rtol,
        atol=used_atol,
        rtol_requested=asked.rtol,
        step=plan.choice.step,
        gradients_per_rhs=flow.cost.gradients,
        hvps_per_rhs=flow.cost.hvps,
        third_derivatives_per_rhs=flow.cost.third_derivatives,
        hvps_per_jvp=flow.cost.hvps_per_jvp,
        probe_rhs_evaluations=probes,
        layout=problem.layout,
        dtype=dtype_name(problem.dtype),
        rtol_floor=floor.rtol,
        gradient_noise=None if floor.precision.own else floor.precision.noise,
        coarse=floor.precision.coarse,
        start_time=float(times[0]),
        lr=flow.lr,
        stateful=len(ode.y0) > problem.layout.size,
        warm_start=beginning.warm,
    )
    if flow.oscillation is not None:
        about = flow.oscillation
        vectors = _vectors(recorded, sketch, ode, problem.layout)
        observers.append(Oscillations(about.at, about.most, about.edge, vectors))
    samples = Samples(problem, field, ode, observers, on_sample)
    fixed = {
        name: getattr(info, name) for name in ("engine", "engine_version", "method", "rtol", "atol", "step")
    }
    fixed |= {"max_step": asked.max_step, "check": checked}
    kept = KeptSolve(kept_in, plan, flow, ode, fixed, samples.recording)
    samples.begin_at(kept.go_on())
    info = replace(info, restarts=kept.restarts)

    def dataset(solution: OdeSolution) -> xr.Dataset:
        return annotate(write(samples.dataset(), _solved(info, solution)))

    let_go(ode.y0)
    try:
        solution = kept.solve(ode, samples)
    except BaseException as error:
        so_far = getattr(error, "ode_solution", None)
        if so_far is not None:
            error.solution = dataset(so_far)  # type: ignore[attr-defined]
        raise
    result = dataset(solution)
    if solution.status != "success":
        warm = beginning.run is not None and beginning.run.warm_start
        remedy = flow.non_finite_remedy(warm_start=warm)
        if solution.status == "non_finite" and not is_finite(field.at_start(float(times[0]), ode.y0)):
            remedy = (
                "the loss overflows at the start already, or there are NaN or infinite values in the data"
                + problem.beyond_float16
            )
        reason = failure(solution, remedy, fixed_step=ode.step is not None)
        raise SolveError(f"{title}: {reason}", result)
    if not checked:
        return result
    let_go(ode.y0)
    try:
        seen = Seen() if sketch is None else Seen(sketch.signs(problem.layout, samples.device))
        thetas = result["theta" if sketch is None else "theta_sketch"].values
        solved = Solved(solution, thetas, used_atol, floor.rtol, problem.layout.size, seen)
        verdict = check_solution(field, kept, ode, solved)
    except BaseException as error:
        error.solution = result  # type: ignore[attr-defined]
        raise
    counts = (None,) * 3 if verdict.spent is None else verdict.spent.counts
    info = replace(
        _solved(info, solution),
        check=verdict.how,
        check_verdict=verdict.verdict,
        check_status=verdict.status,
        check_rhs_evaluations=verdict.rhs_evaluations,
        check_jvp_evaluations=verdict.jvp_evaluations,
        check_gradient_evaluations=counts[0],
        check_hvp_evaluations=counts[1],
        check_third_derivative_evaluations=counts[2],
    )
    return annotate(write(result.assign(solver_error=("time", verdict.errors)), info))


def _vectors(
    recorded: Collection[str], sketch: Sketch | None, ode: OdeProblem, layout: Layout
) -> tuple[str, Callable[[Tensor], Tensor]] | None:
    """How a flow's own observers record vectors: as theta is, where there is room for some of each sample."""
    if sketch is not None:
        where = ode.y0.device if isinstance(ode.y0, Tensor) else torch.device("cpu")
        return "sketch_index", sketch.signs(layout, where).of
    if "theta" in recorded and len(ode.times) * layout.size <= _MOST_OF_VECTORS:
        return "param", torch.Tensor.clone
    return None


def _has_product(flow: Flow, plan: Plan) -> bool:
    """Does the method use the Jacobian's product, and is there one? Without, it takes differences of the field."""
    method = plan.engine.methods[plan.choice.method]
    used = method.jvp or (method.cheap_jvp and flow.cheap_jvp)
    return flow.jvp is not None and used and flow.problem.has_hessian


def _snapped(jumps: Array, times: Array) -> Array:
    """Jumps at a sample time but for rounding are at that time."""
    nearest = times[np.abs(jumps[:, None] - times).argmin(axis=1)]
    return np.where(np.isclose(jumps, nearest, rtol=1e-9, atol=0.0), nearest, jumps)


def _solved(info: SolveInfo, solution: OdeSolution) -> SolveInfo:
    statistics, spent = solution.statistics, Spent(*solution.statistics.spent)
    return replace(
        info,
        status=solution.status,
        message=solution.message,
        rhs_evaluations=statistics.rhs_evaluations,
        jvp_evaluations=statistics.jvp_evaluations,
        probe_rhs_evaluations=info.probe_rhs_evaluations + statistics.probe_evaluations,
        gradient_evaluations=spent.gradients,
        hvp_evaluations=spent.hvps,
        third_derivative_evaluations=spent.third_derivatives,
        steps=statistics.steps,
        rejected_steps=statistics.rejected_steps,
        wall_seconds=statistics.wall_seconds,
        gradient_equivalents=_gradient_equivalents(info, statistics),
    )


def _gradient_equivalents(info: SolveInfo, statistics: Statistics) -> float | None:
    """See `SolveInfo`. A product counts as its time over that of a right-hand side, both of this solve."""
    if info.hvps_per_rhs or info.third_derivatives_per_rhs:
        return None
    evaluations = float(statistics.rhs_evaluations + statistics.probe_evaluations)
    if statistics.jvp_evaluations:
        if not statistics.rhs_seconds > 0:
            return None
        evaluations += statistics.jvp_seconds * statistics.rhs_evaluations / statistics.rhs_seconds
    return evaluations * info.gradients_per_rhs
