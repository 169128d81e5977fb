"""solve_charges: a charge law to an ODE engine, step by step through the jumps of its driver."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bridges import Engine, OdeProblem, choose, get_engine
from nm_ode.charges.field import ChargeLaw
from nm_ode.charges.laws import TITLES, LawError, as_prediction
from nm_ode.solving import require_options

_STIFFNESS = 2.0  # b/m times a step is 2(1−β)/(1+β), at most this


def solve_charges(
    run: xr.Dataset,
    law: str = "second_order",
    *,
    engine: str = "auto",
    method: str | None = None,
    rtol: float = 1e-9,
    atol: float | None = None,
) -> xr.Dataset:
    """The continuous law of a run's charges, solved by an engine with the recorded driver.

    `predict_charges` integrates the same equation by matrix exponentials, without an error of its own; this is the
    same by any method of any engine.

    Args:
        run: from `train(..., symmetries=...)`.
        law: "second_order", or "first_order" (without momentum).
        engine, method: as in `solve`; the engine is started anew at each step, since the driver jumps. "auto" takes
            what fits a smooth equation that is not stiff: over one step the velocity relaxes by no more than e².
            "diffeq" solves all charges at once inside Julia, with Vern7 if no method is named.
        rtol, atol: of the local error; atol is rtol times the largest charge if None.

    Returns:
        `charge` (step, charge_index), with the run's coordinates; attributes `law`, `engine`, `method`, `rtol`, `atol`,
        `rhs_evaluations`.

    Raises:
        LawError: no charges, a law that is no differential equation, the first-order law with momentum, or an engine
            that gave up.
        EngineError: unknown engine or method.
    """
    field = ChargeLaw.of(run, law)
    require_options(engine, method, None)
    if engine == "auto":
        choice = choose(kinks=(), stiffness=_STIFFNESS, rtol=rtol)
        engine, method = choice.engine, choice.method
    solver = get_engine(engine)
    if method in (None, "auto"):
        method = solver.laws_method
    assert method is not None
    if solver.capabilities.laws:
        return _in_one_solve(run, field, law, solver, method, rtol, atol)
    times, state = field.times, field.start
    used_atol = _atol(field, rtol, atol)
    charges, evaluations = [field.charge_in(state)], 0
    for k, ends in enumerate(pairwise(times)):

        def rhs(t: float, y: NDArray[np.float64], dy: NDArray[np.float64], k: int = k) -> None:
            dy[:] = field.rhs(k, y)

        after = np.empty_like(state)

        def keep(index: int, t: float, y: NDArray[np.float64], after: NDArray[np.float64] = after) -> None:
            after[:] = y

        solution = solver.solve(OdeProblem(rhs, state, np.array(ends), rtol, used_atol), method, keep)
        if solution.status != "success":
            raise LawError(f"{TITLES[law]}: {engine} {method} stopped in step {k}: {solution.message}")
        evaluations += solution.statistics.rhs_evaluations
        state = after
        charges.append(field.charge_in(state))
    return _prediction(run, np.stack(charges), law, engine, method, rtol, used_atol, evaluations)


def _in_one_solve(
    run: xr.Dataset,
    field: ChargeLaw,
    law: str,
    solver: Engine,
    method: str,
    rtol: float,
    atol: float | None,
) -> xr.Dataset:
    """All charges in one solve of the engine's own, which is given the drivers of every step."""
    m, b, force, kappa = field.coefficients()
    used_atol = _atol(field, rtol, atol)
    charges, evaluations = solver.solve_laws(
        order=field.order,
        m=m,
        b=b,
        kappa=kappa,
        force=force,
        y0=field.start,
        times=field.times,
        method=method,
        rtol=rtol,
        atol=used_atol,
    )
    return _prediction(run, charges, law, solver.name, method, rtol, used_atol, evaluations)


def _atol(field: ChargeLaw, rtol: float, atol: float | None) -> float:
    if atol is not None:
        return atol
    return rtol * max(float(np.abs(field.run.start).max()), np.finfo(float).tiny)


def _prediction(
    run: xr.Dataset,
    charges: NDArray[np.float64],
    law: str,
    engine: str,
    method: str,
    rtol: float,
    atol: float,
    evaluations: int,
) -> xr.Dataset:
    return as_prediction(
        run,
        charges,
        {
            "law": law,
            "title": TITLES[law],
            "engine": engine,
            "method": method,
            "rtol": rtol,
            "atol": atol,
            "rhs_evaluations": evaluations,
        },
    )
