"""The backend that is Julia: DifferentialEquations.jl through diffeqpy. Imported in the worker process alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bridges.julia import protocol
from bridges.julia.methods import METHODS, PACKAGES
from bridges.problem import Array

Ask = Callable[[bytes, float], float]


class JuliaBackend:
    """Starts Julia, loads the packages and compiles nothing before the first solve."""

    def __init__(self) -> None:
        if shutil.which("julia") is None:
            # diffeqpy would download one now; `installing.worker_environment` puts ours on the path.
            raise RuntimeError("no julia on the path: run `nm-ode bridge install`")
        from diffeqpy import load_julia_packages

        load_julia_packages(*PACKAGES)
        from juliacall import Main

        self._jl = jl = Main
        jl.seval(f'include(raw"{Path(__file__).with_name("nm_bridge.jl")}")')
        self._bridge = jl.NMBridge
        self._noise: Any = None
        # A numpy array reaches Julia as PyArray, which in-place solves refuse (rule 3).
        self._vector = jl.seval("x -> Vector{Float64}(x)")
        self._matrix = jl.seval("x -> Matrix{Float64}(x)")
        self._copy = jl.seval("copyto!")
        self._options = jl.seval("(; kwargs...) -> kwargs")

    def versions(self) -> dict[str, str]:
        """Julia and the packages that it solves with."""
        found = {"julia": str(self._jl.seval("string(VERSION)"))}
        for package in ("OrdinaryDiffEq", "SciMLBase"):
            found[package] = str(self._jl.seval(f"string(pkgversion(NMBridge.{package}))"))
        return found

    def solve(self, job: dict[str, Any], rows: Array, ask: Ask) -> dict[str, Any]:
        """See `worker.Backend.solve`."""
        state, rate, direction = self._shared(rows)
        y0 = self._vector(rows[protocol.STATE].copy())
        atol = self._vector(rows[protocol.RATE].copy()) if job["atol"] is None else job["atol"]

        def rhs(t: Any) -> None:
            ask(protocol.RHS, float(t))

        def jvp(t: Any) -> None:
            ask(protocol.JVP, float(t))

        def sharpness(t: Any, u: Any) -> float:
            self._copy(state, u)
            return float(ask(protocol.SHARPNESS, float(t)))

        def on_sample(index: Any, u: Any) -> None:
            self._copy(state, u)
            ask(protocol.SAMPLE, float(index))

        options = {"reltol": job["rtol"], "maxiters": job["max_steps"], **_fixed(job["step"])}
        if job["max_step"] is not None:
            options["dtmax"] = job["max_step"]
        field = self._bridge.field(rhs, jvp if job["jvp"] else None, state, rate, direction)
        algorithm = self._bridge.algorithm(
            job["method"], job["kind"], sharpness if job["sharpness"] else None
        )
        code, time, steps, rejected = self._bridge.run(
            field, y0, self._vector(np.array(job["times"])), algorithm, atol, on_sample, **options
        )
        return {
            "retcode": str(code),
            "time": float(time),
            "steps": int(steps),
            "rejected_steps": int(rejected),
        }

    def noisy(self, job: dict[str, Any], rows: Array, arrays: dict[str, Any], ask: Ask) -> dict[str, Any]:
        """See `session.WorkerSession.noisy`."""
        if not self._noise:
            try:
                self._jl.seval(f'include(raw"{Path(__file__).with_name("nm_noise.jl")}")')
            except Exception as error:
                raise RuntimeError(
                    "StochasticDiffEq is not in Julia's project: run `nm-ode bridge install`"
                ) from error
            self._noise = self._jl.NMNoise
        state, rate, _ = self._shared(rows)

        def drift(t: Any) -> None:
            ask(protocol.RHS, float(t))

        def on_member(index: Any, u: Any) -> None:
            self._copy(state, u)
            ask(protocol.SAMPLE, float(index))

        factor = arrays["factor"]
        code = self._noise.paths(
            drift,
            state,
            rate,
            self._vector(rows[protocol.STATE].copy()),
            self._vector(factor) if job["diagonal"] else self._matrix(factor.T),
            job["time"],
            job["step"],
            self._jl.seval("x -> [UInt64(i) for i in x]")(job["seeds"]),
            job["method"],
            on_member,
        )
        return {"retcode": str(code)}

    def laws(self, job: dict[str, Any], arrays: dict[str, Any], ask: Ask) -> dict[str, Any]:
        """See `session.WorkerSession.laws`; no callback."""
        kind = METHODS[job["method"]].kind
        # Julia's columns are numpy's rows: steps along the second axis.
        matrices = [self._matrix(arrays[name].T) for name in ("m", "b", "force")]
        code, time, evaluations, products, charges = self._bridge.laws(
            job["order"],
            matrices[0],
            matrices[1],
            self._vector(arrays["kappa"]),
            matrices[2],
            self._vector(arrays["y0"]),
            self._vector(arrays["times"]),
            self._bridge.algorithm(job["method"], "explicit" if kind == "stabilised" else kind, None),
            job["rtol"],
            job["atol"],
            os.getppid(),
            **_fixed(job["step"]),
        )
        return {
            "retcode": str(code),
            "time": float(time),
            "rhs_evaluations": int(evaluations),
            "jvp_evaluations": int(products),
            "arrays": {"charges": np.array(charges, dtype=np.float64).T},
        }

    def _shared(self, rows: Array) -> tuple[Any, Any, Any]:
        """The rows as vectors of Julia's, without a copy."""
        n = rows.shape[1]
        first = rows.__array_interface__["data"][0]
        state, rate, direction = (self._bridge.row(first + 8 * n * i, n) for i in range(3))
        return state, rate, direction


def _fixed(step: float | None) -> dict[str, Any]:
    """Options of `init` for steps of this length; none for steps that the method chooses."""
    return {} if step is None else {"adaptive": False, "dt": step}
