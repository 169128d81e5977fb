"""What of Julia is installed, and how to install it. Nothing here starts Julia, and no solve ever downloads."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridges.errors import EngineError

DECLARED = Path(__file__).resolve().parents[1] / "juliapkg.json"
"""Where juliapkg finds it: at the top of an importable package, not deeper (docs/bridge.md rule 7)."""

WHAT_TO_EXPECT = (
    "about 1 GB to download (Julia, if there is none, and the solvers) and 10 to 30 minutes to compile"
)
REMEDY = f"run `nm-ode bridge install` ({WHAT_TO_EXPECT}), or take engine 'sundials'"


_RESOLVE = """
import sys
import juliapkg
try:
    juliapkg.resolve(force=True)
except Exception as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class Installation:
    """A Julia and a project that it solves in.

    Attributes:
        julia: the executable; None if there is none.
        project: the folder of the project; None if none was made.
        missing: declared packages that the project lacks.
        lacks: what is missing altogether, in words; "" if all is there.
    """

    julia: Path | None
    project: Path | None
    missing: tuple[str, ...]
    lacks: str

    @property
    def ready(self) -> bool:
        """Whether a worker can start."""
        return not self.lacks


def installation() -> Installation:
    """What there is, from juliapkg's own record; or from PYTHON_JULIACALL_EXE and _PROJECT, set together (rule 11)."""
    if importlib.util.find_spec("diffeqpy") is None or importlib.util.find_spec("juliapkg") is None:
        return Installation(None, None, (), "diffeqpy is not installed: pip install diffeqpy")
    executable, project = (os.environ.get(f"PYTHON_JULIACALL_{name}") for name in ("EXE", "PROJECT"))
    if (executable is None) != (project is None):
        return Installation(
            None,
            None,
            (),
            "PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT must be set together, or neither",
        )
    if executable is None or project is None:
        from juliapkg.state import STATE

        project = str(STATE["project"])
        try:
            meta = json.loads(Path(str(STATE["meta"])).read_text())
        except (OSError, json.JSONDecodeError):
            return Installation(_path(shutil.which("julia")), None, (), "Julia's packages are not installed")
        executable = str(meta["executable"])
    julia = _path(shutil.which(executable))
    if julia is None:
        return Installation(None, Path(project), (), f"there is no Julia at {executable}")
    missing = _missing(Path(project))
    lacks = f"the project {project} lacks {', '.join(missing)}" if missing else ""
    return Installation(julia, Path(project), missing, lacks)


def declared() -> dict[str, str]:
    """Package → UUID, of `bridges/juliapkg.json`."""
    packages = json.loads(DECLARED.read_text())["packages"]
    return {name: entry["uuid"] for name, entry in packages.items()}


def optional() -> dict[str, str]:
    """Package → UUID that only some things need: the stochastic modified flow."""
    return {"StochasticDiffEq": "789caeaf-c7a9-5a7d-9973-96adeb23e2a0"}


def worker_environment() -> dict[str, str]:
    """For the worker: our Julia on the path and no way to the network (rule 11)."""
    found = installation()
    assert found.julia is not None
    assert found.project is not None
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(found.julia.parent), os.environ.get("PATH", "")]),
        "PYTHON_JULIACALL_EXE": str(found.julia),
        "PYTHON_JULIACALL_PROJECT": str(found.project),
        "PYTHON_JULIACALL_HANDLE_SIGNALS": "no",
        "PYTHON_JULIACALL_STARTUP_FILE": "no",
        "PYTHON_JULIAPKG_OFFLINE": "yes",
        "JULIA_PKG_OFFLINE": "true",
        "JULIA_NUM_THREADS": "1",
    }


def install(*, offline: bool = False, on_line: Callable[[str], None] = print) -> None:
    """Install Julia and the declared packages with juliapkg, in a process of its own.

    Args:
        offline: from a depot that has all already; nothing is fetched.
        on_line: called with each line that juliapkg and Julia print.

    Raises:
        EngineError: it did not work; with the last line.
    """
    if importlib.util.find_spec("juliapkg") is None:
        raise EngineError("diffeqpy is not installed: pip install diffeqpy")
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHON_JULIAPKG_OFFLINE": "yes" if offline else "no",
    }
    if offline:
        environment["JULIA_PKG_OFFLINE"] = "true"
    # juliapkg looks for juliapkg.json in the packages on sys.path: bridges/ must be one.
    root = str(DECLARED.parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-c", _RESOLVE],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    last = ""
    with process.stdout:
        for line in process.stdout:
            if line.strip():
                last = line.strip()
                on_line(line.rstrip())
    if process.wait() != 0:
        remedy = (
            "; put a Julia of that version on the path" if offline and "could not find Julia" in last else ""
        )
        raise EngineError(f"the installation did not work: {last}{remedy}")
    found = installation()
    if not found.ready:
        raise EngineError(f"the installation is not complete: {found.lacks}")


def _missing(project: Path) -> tuple[str, ...]:
    manifests = [project / name for name in ("Manifest.toml", "JuliaManifest.toml")]
    text = next((manifest.read_text() for manifest in manifests if manifest.is_file()), "")
    return tuple(name for name, uuid in declared().items() if uuid not in text)


def _path(found: str | None) -> Path | None:
    return None if found is None else Path(found)
