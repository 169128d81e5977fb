"""Make Julia's project from a depot that has all already. Run by `installing.install` in a process of its own.

juliapkg, told to be offline, finds Julia and records it, but writes no project and installs nothing (docs/bridge.md
rule 14). So that part is done here, from its own list of what is required.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PUT_JULIA_THERE = (
    "put a Julia of that version on the path, or name one, and a project, in PYTHON_JULIACALL_EXE and "
    "PYTHON_JULIACALL_PROJECT"
)
_FILL_THE_DEPOT = (
    "run `nm-ode bridge install` without --offline once, here or on a machine of the same kind "
    "whose depot (JULIA_DEPOT_PATH) is then copied"
)


def main() -> None:
    """Find Julia, write the project, let Julia's Pkg resolve and compile it, and have juliapkg record it.

    Whatever fails ends the process with one sentence, and leaves the project as it was.
    """
    try:
        _make_project()
    except Exception as error:
        sys.exit(str(error))


def _make_project() -> None:
    from juliapkg import deps
    from juliapkg.find_julia import find_julia
    from juliapkg.state import STATE

    compat, packages = deps.find_requirements()
    print(f"Locating Julia {compat}")
    try:
        # With its STATE["offline"] juliapkg installs none.
        julia, version = find_julia(compat=compat, prefix=STATE["install"])
    except Exception as error:
        raise RuntimeError(f"{error}; {_PUT_JULIA_THERE}") from None
    folder = Path(STATE["project"])
    print(f"Using Julia {version} at {julia}, project {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder), _restored_on_failure(folder):
        _write_project(folder, packages, keep=STATE["project_is_shared"])
        _resolve(str(julia), folder, packages)
    deps.resolve(force=True)


def _write_project(folder: Path, packages: Sequence[Any], *, keep: bool) -> None:
    """Project.toml with juliapkg's requirements; with what else is in it, and the manifest, if `keep`."""
    import tomlkit

    names = _PROJECTS if keep else _PROJECTS[-1:]
    path = next((folder / name for name in names if (folder / name).is_file()), folder / _PROJECTS[-1])
    document = tomlkit.document()
    if keep and path.is_file():
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
    tables = {
        "deps": {package.name: package.uuid for package in packages},
        "compat": {package.name: package.version and str(package.version) for package in packages},
        "preferences": {package.name: getattr(package, "preferences", None) for package in packages},
    }
    for title, entries in tables.items():
        table = document.setdefault(title, tomlkit.table())
        for name, value in entries.items():
            if value:
                table[name] = value
            else:
                table.pop(name, None)
    if not keep:
        for name in _MANIFESTS:
            (folder / name).unlink(missing_ok=True)
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


def _resolve(julia: str, folder: Path, packages: Sequence[Any]) -> None:
    """Run Julia's Pkg on the project, with no way to the network.

    Raises:
        RuntimeError: it failed; with the remedy.
    """
    developed, added = (
        [package.jlstr() for package in packages if package.dev is dev] for dev in (True, False)
    )
    script = [
        "import Pkg",
        "Pkg.offline(true)",
        # Without a registry Pkg would fetch one, offline or not.
        'isempty(Pkg.Registry.reachable_registries()) && error("the depot has no registry of packages")',
        *([f"Pkg.develop([{', '.join(developed)}])"] if developed else []),
        *([f"Pkg.add([{', '.join(added)}])"] if added else []),
        "Pkg.resolve()",
        "Pkg.instantiate()",
        "Pkg.precompile()",
    ]
    environment = {
        **os.environ,
        "JULIA_PKG_OFFLINE": "true",
        "JULIA_PKG_PRECOMPILE_AUTO": "0",  # once, at the end, where what fails is an error
        # As juliapkg does: PythonCall is compiled for this Python and does not look for another.
        "JULIA_PYTHONCALL_EXE": sys.executable,
    }
    error = ""
    with subprocess.Popen(
        [julia, f"--project={folder}", "--startup-file=no", "-e", "\n".join(script)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                # The first one says what is wrong; others, and a stack, may follow.
                if line.startswith("ERROR: ") and not error:
                    error = line.removeprefix("ERROR: ").strip().rstrip(":")
        except BaseException:
            process.kill()  # it must not write into a project that is being restored
            raise
    if process.returncode != 0:
        reason = error or f"it ended with status {process.returncode}"
        raise RuntimeError(
            f"Julia could not make the project from what its depot has: {reason}; {_FILL_THE_DEPOT}"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock that juliapkg takes too."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock.pid")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("Waiting: another process installs here")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _restored_on_failure(folder: Path) -> Iterator[None]:
    """The project's files are what they were, if the block fails."""
    before = {
        path: path.read_bytes() if path.is_file() else None
        for path in (folder / name for name in (*_PROJECTS, *_MANIFESTS))
    }
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not cut this short
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        raise


_PROJECTS = ("JuliaProject.toml", "Project.toml")
_MANIFESTS = ("JuliaManifest.toml", "Manifest.toml")
"""In the order in which Julia looks for them."""
