"""What the worker process costs: microseconds a right-hand side at each size of the state, start-up, reuse.

The right-hand side is a negation, so that what is measured is the way there and back. The stand-in worker (SciPy in the
place of Julia, the same protocol) is always measured; Julia where it is installed. Beside it the same solve in this
process, whose right-hand side costs no crossing.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
from measuring import report, seconds

sys.path.insert(0, str(Path(__file__).parents[1]))

from bridges import OdeProblem, get_engine
from bridges.julia.engine import JULIA, DiffeqEngine, shared_session
from bridges.julia.installing import installation
from bridges.julia.session import WorkerSession

STAND_IN = "tests.bridges.stand_in:StandIn"
SIZES = {10: 4000, 1_000: 4000, 100_000: 400, 1_000_000: 40}


def negate(t: float, y: np.ndarray, dy: np.ndarray) -> None:
    np.negative(y, out=dy)


def microseconds(engine, method: str, n: int, evaluations: int, repeats: int = 5) -> dict[str, float]:
    """Of a right-hand side, over solves of as many of them with RK4's four a step (or Midpoint's six here)."""
    per_step = 4 if method == "RK4" else 6
    problem = OdeProblem(negate, np.ones(n), np.array([0.0, 1.0]), step=per_step / evaluations)
    found = []
    for _ in range(repeats + 1):
        out: list = []
        took = seconds(lambda out=out: out.append(engine.solve(problem, method, lambda i, t, y: None)))
        found.append(1e6 * took / out[0].statistics.rhs_evaluations)
    warm = sorted(found[1:])
    return {
        "median": round(statistics.median(warm), 1),
        "least": round(warm[0], 1),
        "most": round(warm[-1], 1),
    }


def crossing(backend: str) -> dict[str, object]:
    engine, inside = DiffeqEngine(backend), get_engine("scipy")
    started = time.perf_counter()
    versions = engine.version
    start_up = time.perf_counter() - started
    table = []
    for n, evaluations in SIZES.items():
        # In turns, so that a busy machine is busy for both.
        across = microseconds(engine, "RK4", n, evaluations)
        here = microseconds(inside, "Midpoint", n, evaluations)
        table.append({"n": n, "evaluations": evaluations, "worker": across, "in_process": here})
    again = []
    for _ in range(10):
        problem = OdeProblem(negate, np.ones(1000), np.array([0.0, 0.1]))
        again.append(
            1e3 * seconds(lambda problem=problem: engine.solve(problem, "Tsit5", lambda i, t, y: None))
        )
    return {
        "versions": versions,
        "start_up_seconds": round(start_up, 2),
        "a_short_solve_again_ms": round(statistics.median(again), 2),
        "microseconds_per_rhs": table,
    }


def cold_starts() -> list[float]:
    found = []
    for _ in range(3):
        session = WorkerSession(STAND_IN)
        found.append(round(seconds(session.versions), 2))
        session.close()
    return found


if __name__ == "__main__":
    julia = installation()
    results: dict[str, object] = {
        "stand_in": crossing(STAND_IN),
        "stand_in_cold_starts_seconds": cold_starts(),
    }
    results["julia"] = crossing(JULIA) if julia.ready else f"not measured: {julia.lacks}"
    for backend in (STAND_IN, JULIA):
        shared_session(backend).close()
    report("bridge", "right-hand sides across the process boundary with those in this process", results)
