"""Does everything work here? Versions, devices, and each engine tried on a real equation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridges import EngineError, OdeProblem, engine_names, get_engine
from bridges.julia.installing import WHAT_TO_EXPECT, installation


@dataclass(frozen=True)
class Finding:
    """One engine or device: whether it works, what it is, and what to do where it does not."""

    name: str
    works: bool
    detail: str
    remedy: str = ""


def devices() -> list[Finding]:
    """The CPU, and the GPU if torch sees one."""
    import torch

    found = [Finding("cpu", True, f"{torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        return [*found, Finding("cuda", True, torch.cuda.get_device_name())]
    built = torch.version.cuda
    remedy = "install a CUDA build of torch" if built is None else "check the driver with nvidia-smi"
    return [*found, Finding("cuda", False, "torch sees no GPU", remedy + ", if there is a GPU")]


def engines() -> list[Finding]:
    """Every engine, each of its methods solving y' = −y to t = 1."""
    return [*(_try(name) for name in engine_names() if name != "diffeq"), _julia()]


def _try(name: str, methods: tuple[str, ...] | None = None) -> Finding:
    try:
        engine = get_engine(name)
        worst = 0.0
        for method in methods or engine.methods:
            problem = OdeProblem(
                rhs=_decay,
                y0=np.ones(3),
                times=np.array([0.0, 1.0]),
                rtol=1e-6,
                atol=1e-9,
                step=0.001 if method in engine.fixed_step_methods else None,
            )
            last = np.zeros(3)
            solution = engine.solve(problem, method, lambda i, t, y, last=last: np.copyto(last, y))  # type: ignore[misc]
            error = float(np.abs(last - math.exp(-1)).max())
            if solution.status != "success" or not error < 1e-3:
                message = f"{method} is wrong by {error:.1e} on a known equation ({solution.message})"
                return Finding(name, False, message, _reinstall(name))
            worst = max(worst, error)
    except ImportError as error:
        return Finding(name, False, f"its library cannot be imported: {error}", _reinstall(name))
    except EngineError as error:
        return Finding(name, False, str(error), _reinstall(name))
    tried = ", ".join(methods or engine.methods)
    return Finding(name, True, f"{engine.version}: {tried}; error {worst:.0e} on y' = −y")


def _decay(t: float, y: np.ndarray, dy: np.ndarray) -> None:
    np.negative(y, out=dy)


def _reinstall(name: str) -> str:
    if name == "diffeq":
        return "`nm-ode bridge install` again, or `nm-ode bridge status`"
    package = {"sundials": "scikit-sundae", "scipy": "scipy"}[name]
    return f"pip install --force-reinstall {package}"


def _julia() -> Finding:
    """DifferentialEquations.jl: one line, and nothing is started that is not there."""
    found = installation()
    if not found.ready:
        return Finding("diffeq", False, found.lacks, f"`nm-ode bridge install` ({WHAT_TO_EXPECT})")
    return _try("diffeq", ("Tsit5", "Vern9"))
