"""A worker's backend in Julia's place: the same protocol and the same questions, and failures on demand.

What the real thing gets wrong when it is asked wrongly, this gets wrong too: an implicit method whose products with the
Jacobian are bad loses its order, and it asks with directions of 1e-9. Failures on demand go by a method's name.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from typing import Any

import numpy as np
import scipy

import bridges.julia.protocol as protocol
from bridges.julia.methods import NOISE_METHODS
from bridges.julia.worker import Ask
from tests.bridges.rosenbrock import Rosenbrock


def _explicit(method: str) -> Any:
    """A solver of SciPy's, imported where a job needs one: a worker that needs none starts in a fifth of the time."""
    from scipy.integrate import DOP853, RK45

    return RK45 if method == "DP5" else DOP853


def _step(solver: Any) -> int:
    """One step; how many attempts were given up for it."""
    if isinstance(solver, Rosenbrock):
        before = solver.rejected
        solver.step()
        return solver.rejected - before
    evaluated = solver.nfev
    solver.step()
    return (solver.nfev - evaluated) // solver.n_stages - 1


def noise_faults(method: str) -> dict[str, float]:
    """What is wrong with the paths by a method's name: "EM, variance 1.7" has so much of it, "EM, mean 0.3" is off.

    "drift 0.8": so much of the drift; "independence 0": one Gaussian for all directions; "seeds 0": one path for all.
    """
    words = [part.split() for part in method.split(", ")[1:]]
    return {name: float(size) for name, size in words}


class StandIn:
    """SciPy's explicit methods and a Rosenbrock method, whose steps end at each sample.

    Names of stabilised methods ask for the sharpness.
    """

    def __init__(self) -> None:
        print("a line on standard output")  # belongs in the log, never in the protocol
        if "NM_ODE_STAND_IN_FAILS" in os.environ:
            raise RuntimeError("nothing to stand in for")
        if "NM_ODE_STAND_IN_WAITS" in os.environ:
            time.sleep(1000)
        if "NM_ODE_STAND_IN_DIES" in os.environ:
            print("falling over", file=sys.stderr, flush=True)
            os._exit(7)

    def versions(self) -> dict[str, str]:
        return {"StandIn (SciPy)": scipy.__version__}

    def solve(self, job: dict[str, Any], rows: np.ndarray, ask: Ask) -> dict[str, Any]:
        method = job["method"]
        state, rate, direction = rows
        y, times = state.copy(), job["times"]
        atol = rate.copy() if job["atol"] is None else job["atol"]
        if method == "raises":
            raise ValueError("this method is broken\nStacktrace:\n [1] somewhere")
        if method == "computes for ever":
            ask(protocol.SAMPLE, 0.0)
            time.sleep(1000)
        if method == "does not give up":
            with contextlib.suppress(Exception):  # GivenUp, of the module that runs as __main__
                ask(protocol.SAMPLE, 0.0)
            time.sleep(1000)

        def field(t: float, y: np.ndarray) -> np.ndarray:
            state[:] = y
            ask(protocol.RHS, t)
            if method == "dies in the middle" and t > 0.5:
                os._exit(3)
            return rate.copy()

        def sample(index: int) -> None:
            state[:] = y
            ask(protocol.SAMPLE, float(index))
            if method == "dies at a sample" and index == 1:
                os._exit(4)

        def product(t: float, y: np.ndarray, v: np.ndarray) -> np.ndarray:
            state[:], direction[:] = y, v
            ask(protocol.JVP, t)
            return rate.copy()

        def ending(retcode: str, t: float) -> dict[str, Any]:
            return {"retcode": retcode, "time": t, "steps": steps, "rejected_steps": rejected}

        if method.startswith("compiles until "):
            while not os.path.exists(method.removeprefix("compiles until ")):
                time.sleep(0.01)
        implicit = job["kind"] == "implicit"
        if implicit and not job["jvp"]:
            raise ValueError("an implicit method is left to find the Jacobian's product by itself")
        sample(0)
        steps = rejected = 0
        for i, (start, end) in enumerate(itertools.pairwise(times), start=1):
            if job["sharpness"]:
                state[:] = y
                assert ask(protocol.SHARPNESS, start) > 0
            if job["step"] is not None:
                count = max(1, int(np.ceil((end - start) / job["step"] * (1 - 1e-12))))
                allowed = min(count, job["max_steps"] - steps)
                y, steps = self._fixed(field, y, start, (end - start) / count, allowed), steps + allowed
                if allowed < count:
                    return ending("MaxIters", start + allowed * (end - start) / count)
                sample(i)
                continue
            options = {"rtol": max(job["rtol"], 3e-14), "atol": atol}
            options |= {} if job["max_step"] is None else {"max_step": job["max_step"]}
            solver: Any
            if implicit:
                solver = Rosenbrock(field, product, start, y, end, **options)
            else:
                solver = _explicit(method)(field, start, y, end, **options)
            while solver.status == "running":
                rejected += _step(solver)
                steps += solver.status != "failed"
                if steps >= job["max_steps"] and solver.status == "running":
                    return ending("MaxIters", solver.t)
            if solver.status == "failed":
                return ending("DtLessThanMin", solver.t)
            y = solver.y.copy()
            sample(i)
        return ending("Success", times[-1])

    @staticmethod
    def _fixed(field, y: np.ndarray, start: float, h: float, count: int) -> np.ndarray:
        for i in range(count):
            t = start + i * h
            k1 = field(t, y)
            k2 = field(t + h / 2, y + h / 2 * k1)
            k3 = field(t + h / 2, y + h / 2 * k2)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + field(t + h, y + h * k3))
        return y

    def noisy(
        self, job: dict[str, Any], rows: np.ndarray, arrays: dict[str, Any], ask: Ask
    ) -> dict[str, Any]:
        """Euler–Maruyama for "EM", SRA1 for all else; wrong as a method's name says, see `noise_faults`."""
        # Adaptive stochastic methods are wrong (docs/bridge.md rule 12): no job leads to one.
        assert "adaptive" not in job
        assert job["step"] > 0
        if job["method"].partition(",")[0] not in NOISE_METHODS:
            raise RuntimeError(f"StochasticDiffEq has no method {job['method']}")
        state, rate, _ = rows
        y0, factor = state.copy(), arrays["factor"]
        method, time, faults = job["method"], job["time"], noise_faults(job["method"])

        def drift(t: float, y: np.ndarray) -> np.ndarray:
            state[:] = y
            ask(protocol.RHS, t)
            return rate * faults.get("drift", 1.0)

        def kick(normal: np.ndarray) -> np.ndarray:
            if "independence" in faults:
                normal = np.full_like(normal, normal[0])
            scaled = normal * faults.get("variance", 1.0) ** 0.5
            return scaled * factor if job["diagonal"] else scaled @ factor

        # Of a fraction of a step that is rounding no step is made.
        count = max(1, int(np.ceil(time / job["step"] * (1 - 1e-12))))
        for member, seed in enumerate(job["seeds"]):
            generator, y = np.random.default_rng(1 if "seeds" in faults else seed), y0.copy()
            for i in range(count):
                t = i * job["step"]
                h = min(job["step"], time - t)
                dw, dz = h**0.5 * generator.standard_normal((2, len(factor)))
                k1 = drift(t, y)
                if method.startswith("EM"):
                    y = y + h * k1 + kick(dw)
                else:  # Rößler 2010, SRA1; (dw + dz/√3)/2 is the iterated integral I_(1,0) over h
                    k2 = drift(t + 0.75 * h, y + 0.75 * h * k1 + 1.5 * kick((dw + dz / 3**0.5) / 2))
                    y = y + h * (k1 + 2 * k2) / 3 + kick(dw)
            if not np.isfinite(y).all():
                return {"retcode": "Unstable"}
            state[:] = y + faults.get("mean", 0.0)
            ask(protocol.SAMPLE, float(member))
        return {"retcode": "Success"}

    def laws(self, job: dict[str, Any], arrays: dict[str, Any], ask: Ask) -> dict[str, Any]:
        kappa, y, times = arrays["kappa"], arrays["y0"].copy(), arrays["times"]
        n, charges, evaluations = len(kappa), [arrays["y0"][: len(kappa)].copy()], 0
        for k, (start, end) in enumerate(itertools.pairwise(times)):

            def law(t: float, u: np.ndarray, k: int = k) -> np.ndarray:
                if job["order"] == 1:
                    return arrays["force"][k] - kappa * u
                q, rate = u[:n], u[n:]
                return np.concatenate(
                    [rate, (arrays["force"][k] - arrays["b"][k] * rate - kappa * q) / arrays["m"][k]]
                )

            if job["step"] is not None:
                count = max(1, int(np.ceil((end - start) / job["step"] * (1 - 1e-12))))
                y, evaluations = (
                    self._fixed(law, y, start, (end - start) / count, count),
                    evaluations + 4 * count,
                )
                charges.append(y[:n].copy())
                continue
            solver = _explicit("DOP853")(law, start, y, end, rtol=job["rtol"], atol=job["atol"])
            while solver.status == "running":
                solver.step()
            y, evaluations = solver.y.copy(), evaluations + solver.nfev
            charges.append(y[:n].copy())
        return {
            "retcode": "Success",
            "time": float(times[-1]),
            "rhs_evaluations": evaluations,
            "jvp_evaluations": 0,
            "arrays": {"charges": np.array(charges)},
        }
