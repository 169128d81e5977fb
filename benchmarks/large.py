"""Networks of real size: what a solve takes beside its gradients, what a stabilised method needs, and peak memory.

    python benchmarks/large.py [speed] [rkc] [memory] [--sizes 1e5 1e6 5e6 2e7] [--dtype float64] [--samples 256]
                               [--memory-size 2e7] [--memory-dtype float32] [--rounds 5] [--save]

speed   A gradient flow solved by each engine at equal error (each at the loosest of some tolerances at which it is as
        near to a reference as `torch DOP853` is at rtol 1e-4): the time of the solve over that of its bare gradients,
        which is the number of evaluations times the time of one `problem.grad` into a given vector. Solves and blocks
        of bare gradients are taken in turns, so that a loaded machine is slow for both; `ratio` is of wall time,
        `ratio_processor` of the processor's time, medians over the rounds. `beside` is what of the solve's own wall
        time was not spent in gradients or Jacobian products; the latter count with the time that they took. One solve
        is of two times; nothing is recorded, nothing checked. What vectors cost beside a gradient depends on how much
        work it is: here of so many samples.
rkc     Gradients that RKC2 needs beside CVODE's BDF and DOP853 on the flow of the README, whose sharpness grows
        fourfold: probes of the sharpness counted in, Jacobian products as gradients of the same time.
memory  See large_memory.py; here each row in a process of its own.

Prints JSON. One thread, unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import large_memory
import torch
from measuring import report
from torch.nn import functional as F

import nm_ode
from bridges import get_engine
from nm_ode.data import digits
from nm_ode.models import mlp

SIZES = (1e5, 1e6, 5e6, 2e7)
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
TARGET = ("torch DOP853", 1e-4)
SOLVERS = (
    "torch DOP853",
    "torch RK45",
    "torch RKC2",
    "scipy DOP853",
    "sundials BDF",
    "torchdiffeq dopri5",
)
SAME_STEPS = {"scipy DOP853": "torch DOP853"}
"""The same scheme with the same control of its steps: one takes the other's tolerance, and its error is looked at."""
BARE = 5  # gradients of a block


@dataclass
class Clock:
    """A problem whose gradients are counted, and the time that is spent in them."""

    problem: nm_ode.Problem
    gradients: int = 0
    products: int = 0
    in_gradients: float = 0.0
    in_products: tuple[float, float] = (0.0, 0.0)
    original: Callable[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        self.original, self._product = self.problem.loss_and_grad, self.problem.hvp
        self.problem.loss_and_grad = self.gradient  # type: ignore[method-assign]
        self.problem.hvp = self.product  # type: ignore[method-assign]

    def gradient(self, *args: Any, **kwargs: Any) -> Any:
        """`loss_and_grad`, through which `grad` goes."""
        start = time.perf_counter()
        found = self.original(*args, **kwargs)
        self.in_gradients += time.perf_counter() - start
        self.gradients += 1
        return found

    def product(self, *args: Any) -> torch.Tensor:
        """`hvp`, which implicit methods ask for."""
        found: list[torch.Tensor] = []
        wall, processor = _timed(lambda: found.append(self._product(*args)))
        self.in_products = (self.in_products[0] + wall, self.in_products[1] + processor)
        self.products += 1
        return found[0]

    def reset(self) -> None:
        self.gradients = self.products = 0
        self.in_gradients, self.in_products = 0.0, (0.0, 0.0)


def network(size: float, samples: int, dtype: torch.dtype) -> nm_ode.Problem:
    """64-w-w-10 tanh on digits, cross-entropy."""
    width = round((37**2 + size) ** 0.5 - 37)
    data = digits(samples)
    model = mlp([64, width, width, 10], "tanh").to(dtype)
    return nm_ode.Problem(model, F.cross_entropy, (data.x, data.y), dtype=dtype)


def solve(problem: nm_ode.Problem, solver: str, horizon: float, rtol: float) -> torch.Tensor:
    """The end of the flow, in float64."""
    engine, method = solver.split()
    if engine == "torchdiffeq":
        from torchdiffeq import odeint

        def rhs(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return problem.grad(y.to(problem.dtype)).neg_().to(torch.float64)

        times = torch.tensor([0.0, horizon], dtype=torch.float64)
        ends = odeint(rhs, problem.theta0.double(), times, method=method, rtol=rtol, atol=1e-3 * rtol)
        return ends[-1]
    last = LastTheta()
    nm_ode.solve(
        nm_ode.GradientFlow(problem),
        [0.0, horizon],
        engine=engine,
        method=method,
        rtol=rtol,
        atol=1e-3 * rtol,
        record=(),
        observe=[last],
        check=False,
    )
    assert last.theta is not None
    return last.theta


class LastTheta(nm_ode.Observer):
    """Keeps the last theta that it saw: one vector, where a trajectory would keep two."""

    variables = {"time_seen": nm_ode.Variable((), "flow time")}  # noqa: RUF012

    def __init__(self) -> None:
        self.theta: torch.Tensor | None = None

    def observe(self, view: nm_ode.View) -> dict[str, float]:
        if view.time > 0:
            self.theta = view.theta.to(torch.float64, copy=True)
        return {"time_seen": view.time}


def available(solver: str) -> str:
    """Why it is not there; empty if it is."""
    engine, method = solver.split()
    if engine == "torchdiffeq":
        try:
            import torchdiffeq  # noqa: F401
        except ImportError as error:
            return str(error)
        return ""
    found = get_engine(engine)
    return found.lacks() or ("" if method in found.methods else f"engine {engine!r} has no {method}")


def at_equal_error(
    clock: Clock, horizon: float, solvers: list[str]
) -> tuple[float, dict[str, dict[str, float]]]:
    """The target error, and each solver's tolerance, gradients and error."""
    problem = clock.problem
    exact = solve(problem, "torch DOP853", horizon, 1e-8 if problem.dtype == torch.float64 else 1e-6)
    motion = float(torch.linalg.vector_norm(exact - problem.theta0.double()))

    def tried(solver: str, rtol: float) -> dict[str, float]:
        clock.reset()
        end = solve(problem, solver, horizon, rtol)
        error = float(torch.linalg.vector_norm(end.sub_(exact))) / motion
        return {"rtol": rtol, "gradients": clock.gradients, "products": clock.products, "error": error}

    found = {TARGET[0]: tried(*TARGET)}
    target = 1.05 * found[TARGET[0]]["error"]
    for solver in solvers:
        if solver in found or available(solver):
            continue
        if solver in SAME_STEPS:
            found[solver] = tried(solver, found[SAME_STEPS[solver]]["rtol"])
            continue
        for rtol in TOLERANCES:
            found[solver] = tried(solver, rtol)
            if found[solver]["error"] <= target:
                break
    return target, found


def speed(size: float, samples: int, dtype: torch.dtype, rounds: int, solvers: list[str]) -> dict[str, Any]:
    """These solvers on one network."""
    problem = network(size, samples, dtype)
    nm_ode.loss.precision.gradient_precision(problem)  # what is measured once a problem is no part of a solve
    nm_ode.loss.nonsmooth.kinks(problem)
    assert problem.foreign_gradient == ""
    assert problem.has_hessian
    clock, horizon = Clock(problem), 2.0
    target, chosen = at_equal_error(clock, horizon, solvers)
    room = torch.empty_like(problem.theta0)
    theta = problem.theta0.clone()

    def bare() -> tuple[float, float]:
        """Of one gradient."""
        return _timed(lambda: [clock.original(theta, out=room) for _ in range(BARE)], BARE)

    rows: dict[str, list[dict[str, float]]] = {solver: [] for solver in chosen}
    bare()
    for _ in range(rounds):
        before = bare()
        for solver, at in chosen.items():
            clock.reset()
            wall, processor = _timed(lambda solver=solver, at=at: solve(problem, solver, horizon, at["rtol"]))
            inside, count, products, after = clock.in_gradients, clock.gradients, clock.in_products, bare()
            rows[solver].append(
                {
                    "ratio": wall / (count * (before[0] + after[0]) / 2 + products[0]),
                    "ratio_processor": processor / (count * (before[1] + after[1]) / 2 + products[1]),
                    "beside": 1 - (inside + products[0]) / wall,
                    "wall": wall,
                    "gradient_ms": 500 * (before[0] + after[0]),
                }
            )
            before = after
    return {
        "parameters": problem.layout.size,
        "samples": samples,
        "horizon": horizon,
        "error_at_most": target,
        "solvers": {
            solver: chosen[solver]
            | {name: _rounded(statistics.median(one[name] for one in seen)) for name in seen[0]}
            | {"ratios": sorted(_rounded(one["ratio"]) for one in seen)}
            for solver, seen in rows.items()
        },
        "not_measured": {solver: reason for solver in solvers if (reason := available(solver))},
    }


def rkc() -> dict[str, Any]:
    """Gradients of each method on the README's flow."""
    from flow_solve import fourfold_time
    from networks import progressive

    problem = progressive()
    horizon, at_start, at_end = fourfold_time(problem)
    clock = Clock(problem)
    exact = solve(problem, "scipy DOP853", horizon, 1e-11)
    motion = float((exact - problem.theta0).norm())
    rows = []
    for solver in ("torch RKC2", "sundials BDF", "scipy DOP853"):
        for rtol in (1e-3, 1e-4, 1e-5):
            if available(solver):
                rows.append({"solver": solver, "failed": available(solver)})
                break
            clock.reset()
            end = solve(problem, solver, horizon, rtol)
            of_products = clock.in_products[0] * clock.gradients / max(clock.in_gradients, 1e-9)
            rows.append(
                {
                    "solver": solver,
                    "rtol": rtol,
                    "gradients": clock.gradients,
                    "products": clock.products,
                    "in_gradients": round(clock.gradients + of_products),
                    "error": _rounded(float((end - exact).norm()) / motion),
                }
            )
    return {"problem": progressive.__doc__, "horizon": horizon, "sharpness": [at_start, at_end], "rows": rows}


def memory(size: float, dtype: str) -> dict[str, Any]:
    """Each row in a process of its own."""
    script = str(Path(large_memory.__file__))
    found: dict[str, Any] = {}
    for row, of in {**large_memory.ROWS, **large_memory.SOLVES}.items():
        if row.startswith("solve ") and (reason := available(row.removeprefix("solve "))):
            found[row] = {"not_measured": reason}
            continue
        command = [sys.executable, script, f"{size:g}", "--dtype", dtype, "--rows", row]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[row] = {"multiple": json.loads(done.stdout)[row], "of": of}
        if row.startswith("solve torch "):
            wide, narrow = get_engine("torch").methods[row.split()[-1]].vectors or (0, 0)
            found[row]["of"] = (
                f"{wide} vectors of float64 and {narrow} in the field's dtype, by the method's statement"
            )
    return {"parameters": size, "dtype": dtype, "rows": found}


def _timed(work: Callable[[], object], count: int = 1) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def main() -> None:
    """What is asked for on the command line."""
    parts = {"speed", "rkc", "memory"}
    arguments = argparse.ArgumentParser()
    arguments.add_argument("parts", nargs="*", default=sorted(parts), choices=sorted(parts))
    arguments.add_argument("--sizes", nargs="+", type=float, default=list(SIZES))
    arguments.add_argument("--solvers", nargs="+", default=list(SOLVERS), metavar="'ENGINE METHOD'")
    arguments.add_argument("--dtype", default="float64")
    arguments.add_argument("--samples", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--memory-size", type=float, default=2e7)
    arguments.add_argument("--memory-dtype", default="float32")
    arguments.add_argument("--save", action="store_true")
    asked = arguments.parse_args()
    results: dict[str, Any] = {}
    if "speed" in asked.parts:
        dtype = getattr(torch, asked.dtype)
        results["speed"] = [
            speed(size, asked.samples, dtype, asked.rounds, asked.solvers) for size in asked.sizes
        ]
    if "rkc" in asked.parts:
        results["rkc"] = rkc()
    if "memory" in asked.parts:
        results["memory"] = memory(asked.memory_size, asked.memory_dtype)
    report(
        "large",
        "solves by each engine at equal error with their bare gradients; RKC2 with BDF; peaks with P",
        results,
    )


if __name__ == "__main__":
    main()
