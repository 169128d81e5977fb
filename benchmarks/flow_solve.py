"""Gradient evaluations, wall time and error of engine="auto" beside torchdiffeq's dopri5 and SciPy's RK45.

Three tables: a smooth flow whose sharpness grows fourfold, a ReLU flow, and the time that each method adds to
the bare gradients at P = 1e5. Every solver calls the same `problem.grad`; gradients that `auto` spends on its
choice are counted. "At equal error": beside each tolerance of auto stands the cheapest run of the other solver
that is at least as accurate.
"""

from __future__ import annotations

import numpy as np
import torch
from measuring import paired_ratio, report, seconds
from networks import progressive, relu, wide
from scipy.integrate import solve_ivp
from torchdiffeq import odeint

from nm_ode import GradientFlow, Problem, solve
from nm_ode.solving.field import Field
from nm_ode.solving.stiffness import spectral_radius


def sharpness(problem: Problem, theta: np.ndarray) -> float:
    return spectral_radius(Field(GradientFlow(problem)), 0.0, theta, iterations=40)


def fourfold_time(problem: Problem) -> tuple[float, float, float]:
    """(T, sharpness at 0, sharpness at T) with T the first of a grid at which it has grown fourfold."""
    times = np.arange(0.0, 400.0, 10.0)
    path = solve(GradientFlow(problem), times, engine="sundials", rtol=1e-6, record=["theta"], check=False)
    along = [sharpness(problem, theta) for theta in path["theta"].values]
    i = next(i for i, value in enumerate(along) if value >= 4 * along[0])
    return float(times[i]), along[0], along[i]


class Counted:
    def __init__(self, problem: Problem) -> None:
        self.problem, self.count = problem, 0

    def torch(self, t: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.problem.grad(theta).neg_()

    def numpy(self, t: float, theta: np.ndarray) -> np.ndarray:
        self.count += 1
        return -self.problem.grad(torch.from_numpy(theta)).numpy()


def auto(problem: Problem, horizon: float, rtol: float) -> tuple[np.ndarray, int, str]:
    flow = GradientFlow(problem)
    solution = solve(flow, [0.0, horizon], rtol=rtol, atol=1e-3 * rtol, record=["theta"], check=False)
    attrs = solution.attrs
    count = attrs["gradient_evaluations"] + attrs["probe_rhs_evaluations"]
    return solution["theta"].values[-1], count, attrs["method"]


def torchdiffeq(problem: Problem, horizon: float, rtol: float) -> tuple[np.ndarray, int, str]:
    field = Counted(problem)
    times = torch.tensor([0.0, horizon], dtype=torch.float64)
    states = odeint(field.torch, problem.theta0, times, method="dopri5", rtol=rtol, atol=1e-3 * rtol)
    return states[-1].numpy(), field.count, "dopri5"


def scipy_rk45(problem: Problem, horizon: float, rtol: float) -> tuple[np.ndarray, int, str]:
    field = Counted(problem)
    span = (0.0, horizon)
    done = solve_ivp(field.numpy, span, problem.theta0.numpy(), "RK45", rtol=rtol, atol=1e-3 * rtol)
    return done.y[:, -1], field.count, "RK45"


SOLVERS = {"auto": auto, "torchdiffeq": torchdiffeq, "scipy": scipy_rk45}


def table(
    problem: Problem, horizon: float, reference: np.ndarray, tolerances: dict[str, list[float]], repeats=3
):
    motion = np.linalg.norm(reference - problem.theta0.numpy())
    rows: dict[str, list[dict]] = {name: [] for name in SOLVERS}
    work = [(name, rtol) for name, rtols in tolerances.items() for rtol in rtols]
    walls: dict[tuple[str, float], list[float]] = {key: [] for key in work}
    for repeat in range(repeats):  # round after round, so that all solvers share the machine's moods
        for name, rtol in work:
            out: list = []
            run = SOLVERS[name]
            walls[name, rtol].append(
                seconds(lambda run=run, rtol=rtol, out=out: out.append(run(problem, horizon, rtol)))
            )
            if repeat == 0:
                theta, count, method = out[0]
                error = float(np.linalg.norm(theta - reference) / motion)
                rows[name].append({"rtol": rtol, "method": method, "gradients": count, "error": error})
    for name in rows:
        for row in rows[name]:
            row["seconds"] = min(walls[name, row["rtol"]])
    return rows


def at_equal_error(rows: dict[str, list[dict]]) -> list[dict]:
    """Beside each run of auto, the cheapest of each other solver that is at least as accurate."""
    compared = []
    for mine in rows["auto"]:
        entry = {"auto": mine}
        for name in ("torchdiffeq", "scipy"):
            good = [row for row in rows[name] if row["error"] <= mine["error"]]
            if good:
                theirs = min(good, key=lambda row: row["gradients"])
                entry[name] = theirs | {
                    "times_the_gradients": round(theirs["gradients"] / mine["gradients"], 2),
                    "times_the_wall_time": round(theirs["seconds"] / mine["seconds"], 2),
                }
        compared.append(entry)
    return compared


def smooth() -> dict[str, object]:
    problem = progressive()
    horizon, at_start, at_end = fourfold_time(problem)
    flow = GradientFlow(problem)
    exact = solve(flow, [0.0, horizon], engine="scipy", rtol=1e-12, atol=1e-14, record=["theta"], check=False)
    rows = table(
        problem,
        horizon,
        exact["theta"].values[-1],
        {
            "auto": [1e-3, 1e-4, 1e-5, 1e-6, 1e-7],
            "torchdiffeq": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7],
            "scipy": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7],
        },
    )
    return {
        "problem": progressive.__doc__,
        "parameters": problem.layout.size,
        "horizon": horizon,
        "sharpness": [at_start, at_end],
        "reference": "DOP853 at rtol 1e-12",
        "at_equal_error": at_equal_error(rows),
        "all": rows,
    }


def kinked() -> dict[str, object]:
    problem, horizon = relu(), 100.0
    fixed = solve(GradientFlow(problem), [0.0, horizon], engine="scipy", step=0.01, record=["theta"])
    reference = fixed["theta"].values[-1]
    motion = np.linalg.norm(reference - problem.theta0.numpy())
    rows = table(
        problem,
        horizon,
        reference,
        {
            "auto": [1e-2, 1e-3, 1e-4],
            "torchdiffeq": [1e-2, 1e-3, 1e-4, 1e-5],
            "scipy": [1e-2, 1e-3, 1e-4, 1e-5],
        },
    )
    return {
        "problem": relu.__doc__,
        "parameters": problem.layout.size,
        "horizon": horizon,
        "reference": "midpoint rule, h = 0.005",
        "reference_error": float(fixed["solver_error"][-1] / motion),
        "at_equal_error": at_equal_error(rows),
        "all": rows,
    }


def overhead() -> dict[str, object]:
    """Time of a solve over the time of as many bare gradients, in turns."""
    problem = wide()
    flow, theta, found = GradientFlow(problem), problem.theta0, {}
    for engine, method in (("sundials", "BDF"), ("scipy", "DOP853"), ("scipy", "RK23")):
        options = {"engine": engine, "method": method, "rtol": 1e-5, "record": (), "check": False}
        count = solve(flow, [0.0, 3.0], **options).attrs["rhs_evaluations"]

        def solve_it(options=options) -> None:
            solve(flow, [0.0, 3.0], **options)

        def bare(count=count) -> None:
            for _ in range(count):
                problem.grad(theta)

        found[method] = {"gradients": count} | paired_ratio(solve_it, bare, repeats=9)
    return {"problem": wide.__doc__, "parameters": problem.layout.size, "methods": found}


if __name__ == "__main__":
    report(
        "flow_solve",
        "nm_ode.solve(engine='auto') with torchdiffeq.odeint(dopri5) and scipy.integrate.solve_ivp(RK45)",
        {"smooth": smooth(), "kinked": kinked(), "overhead": overhead()},
    )
