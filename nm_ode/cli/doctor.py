"""nm-ode doctor: does everything work here? Versions, devices, and each engine tried on a real equation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from bridges import Engine, EngineError, OdeProblem, engine_names, get_engine
from nm_ode.cli.console import out


def doctor(as_json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False) -> None:
    """Versions, devices, and each engine tried on a known equation; with a remedy where one does not work."""
    from nm_ode.studies.versions import versions

    found = {"devices": devices(), "engines": engines()}
    if as_json:
        told = {kind: [asdict(finding) for finding in findings] for kind, findings in found.items()}
        print(json.dumps({"versions": versions()} | told, indent=1))
        return
    out.print(", ".join(f"{name} {version}" for name, version in versions().items()), style="dim")
    table = Table(box=None, header_style="dim")
    for column in ("", "name", "works", "what", "remedy"):
        table.add_column(column)
    for kind, findings in found.items():
        for i, finding in enumerate(findings):
            works = "[green]yes[/green]" if finding.works else "[yellow]no[/yellow]"
            table.add_row(
                kind if i == 0 else "", finding.name, works, escape(finding.detail), escape(finding.remedy)
            )
    out.print(table)


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
    """Every registered engine, tried on a known equation; one that lacks something is not started."""
    return [_try(name) for name in engine_names()]


def _try(name: str) -> Finding:
    try:
        engine = get_engine(name)
    except ImportError as error:
        remedy = f"install {error.name}" if error.name else "reinstall its library"
        return Finding(name, False, f"its library cannot be imported: {error}", remedy)
    try:
        engine.require_ready()
        return _solve_decay(engine)
    except (ImportError, EngineError) as error:
        return Finding(name, False, str(error), _remedy(engine))


def _solve_decay(engine: Engine) -> Finding:
    """Each of the engine's trial methods solves y' = −y to t = 1."""
    worst = 0.0
    methods = getattr(engine, "trial_methods", engine.methods)
    for method in methods:
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
            told = f"{method} is wrong by {error:.1e} on a known equation ({solution.message})"
            return Finding(engine.name, False, told, _remedy(engine))
        worst = max(worst, error)
    tried = ", ".join(methods)
    return Finding(engine.name, True, f"{engine.version}: {tried}; error {worst:.0e} on y' = −y")


def _decay(t: float, y: np.ndarray, dy: np.ndarray) -> None:
    np.negative(y, out=dy)


def _remedy(engine: Engine) -> str:
    return str(getattr(engine, "remedy", "reinstall its library"))
