"""Work–precision: gradients and time of each method against its error, on a smooth stiffening flow and on a kinked one.

    python benchmarks/work_precision.py [smooth] [kinked] [--save]     these alone; the other stays as it was saved

The two flows of benchmarks/flow_solve.py. `auto` is what `nm_ode.solve` takes by itself; then single methods of
nm_ode's engines, and beside them torchdiffeq's dopri5 and `scipy.integrate.solve_ivp`'s RK45, which call the same
`problem.grad`. Each is given falling tolerances, atol = rtol / 1000, until it is as near as it comes or has taken
`MOST` gradients.

`gradients` counts all, those of probes too; a Jacobian product counts as many as the time that it took. `time` is of
the processor, one thread, over that of one bare gradient, which is taken before and after each solve, so that a loaded
machine is slow for both; the median over `ROUNDS` rounds (one, of a long solve). Errors are over the motion.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from flow_solve import fourfold_time
from large import Clock, solve
from measuring import report
from networks import progressive, relu
from scipy.integrate import solve_ivp

import nm_ode
from nm_ode import Problem

AUTO, RK45 = "nm_ode auto", "scipy.integrate RK45"
NAMES = {
    AUTO: AUTO,
    "sundials BDF": "nm_ode BDF",
    "scipy DOP853": "nm_ode DOP853",
    "scipy RK23": "nm_ode RK23",
    "torch RKC2": "nm_ode RKC2",
    "torchdiffeq dopri5": "torchdiffeq dopri5",
    RK45: RK45,
}
TOLERANCES = tuple(10.0**-k for k in range(1, 11))
MOST, LONG, ROUNDS, BLOCK = 5000, 1500, 3, 40


def end(problem: Problem, solver: str, horizon: float, rtol: float) -> tuple[torch.Tensor, str]:
    """Where the solver ends, and by which method."""
    if solver == RK45:

        def field(_: float, theta: np.ndarray) -> np.ndarray:
            return -problem.grad(torch.from_numpy(theta)).numpy()

        start = problem.theta0.numpy()
        done = solve_ivp(field, (0.0, horizon), start, "RK45", rtol=rtol, atol=1e-3 * rtol)
        return torch.from_numpy(done.y[:, -1].copy()), "RK45"
    if solver == AUTO:
        flow, options = nm_ode.GradientFlow(problem), {"record": ["theta"], "check": False}
        solution = nm_ode.solve(flow, [0.0, horizon], rtol=rtol, atol=1e-3 * rtol, **options)
        return torch.from_numpy(solution["theta"].values[-1].copy()), nm_ode.solve_info(solution).method
    return solve(problem, solver, horizon, rtol), solver.split()[1]


def point(clock: Clock, solver: str, horizon: float, rtol: float, exact: torch.Tensor) -> dict[str, Any]:
    """One solve: its error, its gradients and its time."""
    problem = clock.problem
    theta, room = problem.theta0.clone(), torch.empty_like(problem.theta0)

    def bare() -> float:
        return _processor(lambda: [clock.original(theta, out=room) for _ in range(BLOCK)]) / BLOCK

    ratios = []
    for _ in range(ROUNDS):
        if ratios and ratios[0][1] > LONG:
            break
        out: list[tuple[torch.Tensor, str]] = []
        before = bare()
        clock.reset()
        took = _processor(lambda out=out: out.append(end(problem, solver, horizon, rtol)))
        gradients, products = clock.gradients, clock.in_products[1]
        a_gradient = (before + bare()) / 2
        ratios.append((took / a_gradient, gradients + products / a_gradient))
    theta_end, method = out[0]
    return {
        "rtol": rtol,
        "method": method,
        "gradients": round(statistics.median(count for _, count in ratios)),
        "products": clock.products,
        "time": round(statistics.median(spent for spent, _ in ratios)),
        "error": float((theta_end - exact).norm() / (exact - theta).norm()),
    }


def curve(clock: Clock, solver: str, horizon: float, exact: torch.Tensor) -> list[dict[str, Any]]:
    """All tolerances of one solver, until a tighter one brings nothing."""
    end(clock.problem, solver, horizon / 100, 1e-3)  # what a first call imports and measures
    found: list[dict[str, Any]] = []
    for rtol in TOLERANCES:
        try:
            found.append(point(clock, solver, horizon, rtol, exact))
        except nm_ode.SolveError as error:
            found.append({"rtol": rtol, "stopped": str(error).split(";")[0]})
            continue
        except nm_ode.NmOdeError:  # a tolerance below what the field's rounding allows
            break
        errors = [one["error"] for one in found if "error" in one]
        if found[-1]["gradients"] > MOST and min(errors) < 0.1:
            break
        if len(errors) > 2 and errors[-1] > 0.8 * errors[-3]:
            break
    return found


def curves(problem: Problem, horizon: float, exact: torch.Tensor) -> dict[str, list[dict[str, Any]]]:
    """By name as on the page."""
    clock = Clock(problem)
    return {NAMES[solver]: curve(clock, solver, horizon, exact) for solver in NAMES}


def smooth() -> dict[str, Any]:
    problem = progressive()
    horizon, at_start, at_end = fourfold_time(problem)
    exact = solve(problem, "scipy DOP853", horizon, 1e-12)
    return {
        "problem": progressive.__doc__,
        "horizon": horizon,
        "sharpness": [at_start, at_end],
        "reference": "DOP853 at rtol 1e-12",
        "solvers": curves(problem, horizon, exact),
    }


def kinked() -> dict[str, Any]:
    problem, horizon = relu(), 100.0
    flow = nm_ode.GradientFlow(problem)
    fixed = nm_ode.solve(flow, [0.0, horizon], engine="scipy", step=0.01, record=["theta"])
    exact = torch.from_numpy(fixed["theta"].values[-1].copy())
    return {
        "problem": relu.__doc__,
        "horizon": horizon,
        "reference": "midpoint rule, h = 0.005",
        "reference_error": float(fixed["solver_error"][-1] / (exact - problem.theta0).norm()),
        "solvers": curves(problem, horizon, exact),
    }


def _processor(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


PARTS = {"smooth": smooth, "kinked": kinked}


def main(arguments: list[str]) -> None:
    saved = Path(__file__).parent / "results" / "work_precision.json"
    wanted = [part for part in PARTS if part in arguments] or list(PARTS)
    before = json.loads(saved.read_text()) if saved.exists() and len(wanted) < len(PARTS) else {}
    results = {part: PARTS[part]() if part in wanted else before.get(part) for part in PARTS}
    report(
        "work_precision",
        "gradients and time of methods against their error: nm_ode's, torchdiffeq's dopri5, scipy.integrate's RK45",
        {part: result for part, result in results.items() if result is not None},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
