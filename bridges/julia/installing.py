"""What of Julia is installed, and how to install it. Only `install` starts Julia, and no solve ever downloads."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridges.errors import EngineError
from bridges.julia.project import SEEN, Project, read_project, seen_running

DECLARED = Path(__file__).resolve().parents[1] / "juliapkg.json"
"""Where juliapkg finds it: at the top of an importable package, not deeper (docs/bridge.md rule 7)."""

WHAT_TO_EXPECT = (
    "about 1 GB to download (Julia, if there is none, and the solvers) and 10 to 30 minutes to compile"
)
REMEDY = f"run `nm-ode bridge install` ({WHAT_TO_EXPECT}), or take engine 'sundials'"
NO_DIFFEQPY = "diffeqpy is not installed: pip install diffeqpy"
STOCHASTIC = "StochasticDiffEq"


_HEARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A job in the background has SIGINT ignored, and so has what it starts; `_interrupt` must reach it."""
_ONLINE = """
import sys
import juliapkg
try:
    juliapkg.resolve(force=True)
except Exception as error:
    sys.exit(str(error))
"""
_OFFLINE = "from bridges.julia.offline import main; main()"
_JULIA_FAILED = "returned non-zero exit status"
"""Of what juliapkg says if Julia failed: the whole script, and no reason."""


@dataclass(frozen=True)
class Installation:
    """A Julia and a project that it solves in.

    Attributes:
        julia: the executable; None if there is none.
        project: the folder of the project; None if none was made.
        missing: declared packages that the project lacks and every solve needs.
        lacks: what is missing altogether, in words; "" if all is there.
        without: those of `optional()` that the project lacks.
    """

    julia: Path | None
    project: Path | None
    missing: tuple[str, ...]
    lacks: str
    without: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether a worker can start."""
        return not self.lacks


@dataclass(frozen=True)
class Chosen:
    """Which Julia and which project are meant, whether they are there or not; install, status and worker ask this.

    Attributes:
        executable: of Julia, as it was given; None if juliapkg is to find one.
        project: the folder.
        named: whether the user named the project; juliapkg then keeps what else is in it.
        record: juliapkg's file of what it installed; None if it has no say.
    """

    executable: str | None
    project: Path
    named: bool
    record: Path | None

    def recorded_executable(self) -> str | None:
        """The Julia that juliapkg found when it installed; None if it never did, or its record is damaged."""
        if self.record is None:
            return None
        try:
            return str(json.loads(self.record.read_text())["executable"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def chosen() -> Chosen:
    """By PYTHON_JULIACALL_EXE and _PROJECT, set together (rule 11), else by juliapkg and what it is told (rule 14).

    Raises:
        EngineError: one of the two alone, or juliapkg refuses what it is told.
    """
    executable, project = (_option("juliacall", name) for name in ("exe", "project"))
    if (executable is None) != (project is None):
        raise EngineError(
            "PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT must be set together, or neither"
        )
    if executable is not None and project is not None:
        found = shutil.which(executable)
        return Chosen(
            executable if found is None else os.path.abspath(found),
            Path(os.path.abspath(project)),
            named=True,
            record=None,
        )
    try:
        from juliapkg.state import STATE
    except Exception as error:  # a relative project, an "offline" that is neither yes nor no
        raise EngineError(str(error)) from None
    return Chosen(
        STATE["override_executable"] or None,
        Path(STATE["project"]),
        named=bool(STATE["project_is_shared"]),
        record=Path(STATE["meta"]),
    )


def installation() -> Installation:
    """What there is, by juliapkg's own record and the project's files."""
    if not _importable():
        return Installation(None, None, (), NO_DIFFEQPY)
    try:
        which = chosen()
    except EngineError as error:
        return Installation(None, None, (), str(error))
    executable = which.executable or which.recorded_executable()
    if executable is None:
        julia = _path(shutil.which("julia"))
        return Installation(julia, None, (), f"Julia's packages are not installed in {which.project}")
    julia = _path(shutil.which(executable))
    if julia is None:
        return Installation(None, which.project, (), f"there is no Julia at {executable}")
    if not which.project.is_dir():
        return Installation(julia, None, (), f"there is no project at {which.project}")
    try:
        project = read_project(which.project)
    except ValueError as error:
        return Installation(julia, which.project, (), str(error))
    absent = [name for name, uuid in needed().items() if not project.has(name, uuid)]
    missing = tuple(name for name in absent if name not in optional())
    lacks = (
        f"the project {which.project} lacks {', '.join(missing)}"
        if missing
        else _unlike_python(project) or _too_old(project)
    )
    return Installation(
        julia, which.project, missing, lacks, tuple(name for name in absent if name in optional())
    )


def require_stochastic() -> None:
    """Raises EngineError, with the remedy, if stochastic paths cannot be solved; starts nothing."""
    found = installation()
    if not found.ready:
        raise EngineError(f"engine 'diffeq' cannot start: {found.lacks}; {REMEDY}")
    if STOCHASTIC in found.without:
        raise EngineError(
            f"{STOCHASTIC} is not in Julia's project: run `nm-ode bridge install`, or take engine 'torch'"
        )


@dataclass(frozen=True)
class PackageStatus:
    """A package of the project.

    Attributes:
        version: "" if the project lacks it.
        seen: the version that has been seen running (docs/bridge.md); "" if none is on record.
        needed_by: what alone needs it; "" if every solve does.
    """

    name: str
    version: str
    seen: str
    needed_by: str

    @property
    def another(self) -> bool:
        """Whether this is another version than the one that was seen."""
        return bool(self.version and self.seen) and not seen_running(self.name, self.version)


def package_statuses() -> list[PackageStatus]:
    """Of Julia and each package that is needed; reads the project's files.

    Raises:
        EngineError: no project is known, or one of its files cannot be read.
    """
    try:
        project = read_project(chosen().project)
    except ValueError as error:
        raise EngineError(str(error)) from None
    there = {
        name: project.version(name) or "without a version"
        for name, uuid in needed().items()
        if project.has(name, uuid)
    }
    return [
        PackageStatus(name, version, SEEN.get(name, ""), optional().get(name, ""))
        for name, version in [("julia", project.julia)] * bool(project.julia)
        + [(name, there.get(name, "")) for name in needed()]
    ]


def declared() -> dict[str, str]:
    """Package → UUID, of `bridges/juliapkg.json`."""
    packages = json.loads(DECLARED.read_text())["packages"]
    return {name: entry["uuid"] for name, entry in packages.items()}


def needed() -> dict[str, str]:
    """Package → UUID: those declared, and PythonCall, which juliacall declares."""
    return declared() | {"PythonCall": "6099a3de-0909-46bc-b1f4-468b9a2dfc0d"}


def optional() -> dict[str, str]:
    """Declared packages that only some things need → what needs them; a project without is ready for the rest."""
    return {STOCHASTIC: "stochastic flows"}


def worker_environment() -> dict[str, str]:
    """For the worker: our Julia on the path and no way to the network (rule 11)."""
    found = installation()
    assert found.julia is not None
    assert found.project is not None
    # The second where one called "julia" lies, which diffeqpy looks for, if ours is a link called "julia-1.10".
    folders = dict.fromkeys(str(path.parent) for path in (found.julia, found.julia.resolve()))
    return {
        **os.environ,
        "PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")]),
        "PYTHON_JULIACALL_EXE": str(found.julia),
        "PYTHON_JULIACALL_PROJECT": str(found.project),
        "PYTHON_JULIACALL_HANDLE_SIGNALS": "no",
        "PYTHON_JULIACALL_STARTUP_FILE": "no",
        "PYTHON_JULIAPKG_OFFLINE": "yes",
        "JULIA_PKG_OFFLINE": "true",
        "JULIA_NUM_THREADS": "1",
    }


def install(*, offline: bool = False, on_line: Callable[[str], None] = print) -> None:
    """Install Julia and the declared packages with juliapkg, in a process of its own; where `chosen` says.

    Args:
        offline: from a depot that has all already; nothing is fetched.
        on_line: called with each line that juliapkg and Julia print.

    Raises:
        EngineError: it did not work; with the reason.
    """
    if not _importable():
        raise EngineError(NO_DIFFEQPY)
    environment = _environment_of_juliapkg(chosen(), offline)
    process = subprocess.Popen(
        # -P: what is installed does not depend on the working directory, whose packages juliapkg would read first.
        [sys.executable, "-P", "-c", _HEARS + (_OFFLINE if offline else _ONLINE)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    last = error = ""
    try:
        for line in process.stdout:
            if line.strip():
                last = line.strip()
                # The first line of Julia's errors says what is wrong; others, and a stack, may follow.
                error = error or (last if last.startswith("ERROR: ") else "")
                on_line(line.rstrip())
    except BaseException:
        _interrupt(process)
        raise
    finally:
        process.stdout.close()
    if process.wait() != 0:
        reason = error if error and _JULIA_FAILED in last else last
        raise EngineError(f"the installation did not work: {reason.removeprefix('ERROR: ').rstrip(':')}")
    found = installation()
    if not found.ready:
        raise EngineError(f"the installation is not complete: {found.lacks}")


def _environment_of_juliapkg(which: Chosen, offline: bool) -> dict[str, str]:
    """Of the process that installs: its juliapkg means the same Julia and project as we do (rule 14).

    Raises:
        EngineError: the Julia that was named is not there.
    """
    if which.executable is not None and shutil.which(which.executable) is None:
        raise EngineError(f"there is no Julia at {which.executable}")
    told = {
        "PYTHON_JULIAPKG_EXE": which.executable,
        "PYTHON_JULIAPKG_PROJECT": str(which.project) if which.named else None,
    }
    environment = {
        **{name: value for name, value in os.environ.items() if name not in told},
        **{name: value for name, value in told.items() if value is not None},
        "PYTHONUNBUFFERED": "1",
        "PYTHON_JULIAPKG_OFFLINE": "yes" if offline else "no",
    }
    if offline:
        environment["JULIA_PKG_OFFLINE"] = "true"
    # juliapkg looks for juliapkg.json in the packages on sys.path: bridges/ must be one.
    root = str(DECLARED.parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return environment


def _interrupt(process: subprocess.Popen[str]) -> None:
    """End it, and have it end the Julia that it started; a terminal's Ctrl-C reached both, another's only us."""
    if os.name == "posix":
        process.send_signal(signal.SIGINT)
    else:
        process.terminate()
    process.communicate()  # what it still says is read, or it could wait for ever


def _unlike_python(project: Project) -> str:
    """juliacall and PythonCall talk to each other in ways that change: each release asks for its own twin."""
    wanted, there = importlib.metadata.version("juliacall"), project.version("PythonCall")
    return (
        ""
        if wanted == there
        else f"juliacall {wanted} needs PythonCall {wanted}, Julia's project has {there}"
    )


def _too_old(project: Project) -> str:
    """OrdinaryDiffEq 6 may take products with the Jacobian by itself, whatever it is given (docs/bridge.md rule 13)."""
    there = project.version("OrdinaryDiffEq")
    return f"OrdinaryDiffEq 7 is needed, Julia's project has {there}" if there.startswith("6.") else ""


def _importable() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("diffeqpy", "juliacall", "juliapkg"))


def _option(package: str, name: str) -> str | None:
    """As juliacall and juliapkg read theirs: `-X juliacall-exe=…`, else PYTHON_JULIACALL_EXE. Empty is not set."""
    given = sys._xoptions.get(f"{package}-{name}", os.environ.get(f"PYTHON_{package}_{name}".upper()))
    return given if isinstance(given, str) and given else None


def _path(found: str | None) -> Path | None:
    return None if found is None else Path(os.path.abspath(found))
