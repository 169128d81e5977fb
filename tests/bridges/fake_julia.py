"""A julia that is a script: it records how it was called, and "resolves" a project as Julia's Pkg would."""

from __future__ import annotations

import importlib.metadata
import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import juliapkg.state  # noqa: F401 - it reads the user's environment once, which no test may have changed by then
import pytest

from bridges.julia.installing import needed

_JULIA = """#!{python} -SE
import json, os, sys, time, tomllib
from pathlib import Path

if sys.argv[1:] == ["--version"]:
    sys.exit(print("julia version {version}"))
script = sys.argv[-1]
if "Libdl" in script:
    sys.exit(print("/lib/libjulia.so", "/bin", sep="\\0", end=""))
(project,) = (a.partition("=")[2] for a in sys.argv if a.startswith("--project="))
text = (Path(project) / "Project.toml").read_text()
call = dict(script=script, project=project, environment=dict(os.environ), text=text)
call["pid"] = os.getpid()
call["manifest"] = (Path(project) / "Manifest.toml").exists()
with open({calls!r}, "a") as file:
    print(json.dumps(call), file=file)
manifest = 'julia_version = "{version}"\\nmanifest_format = "2.0"\\n'
told = tomllib.loads(text)
for name, uuid in told["deps"].items():
    bound = told["compat"].get(name, "")
    version = bound[1:] if bound.startswith("=") else "1.2.3"
    manifest += f'[[deps.{{name}}]]\\nuuid = "{{uuid}}"\\nversion = "{{version}}"\\n'
(Path(project) / "Manifest.toml").write_text(manifest)
print({says!r}, file=sys.stderr, flush=True)
time.sleep({seconds})
sys.exit({status})
"""


class FakeJulia:
    """The script, and what it was asked to do with projects."""

    def __init__(
        self, folder: Path, *, version: str = "1.10.8", says: str = "", status: int = 0, seconds: float = 0.0
    ) -> None:
        self._calls = folder / "calls"
        text = _JULIA.format(
            python=sys.executable,
            version=version,
            calls=str(self._calls),
            says=says,
            status=status,
            seconds=seconds,
        )
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        self.path = executable(folder / "bin/julia", text)

    @property
    def calls(self) -> list[dict]:
        """Each call on a project: `script`, `project`, `environment`, `text` of Project.toml, `manifest` there."""
        if not self._calls.exists():
            return []
        return [json.loads(line) for line in self._calls.read_text().splitlines()]


def keep_from_the_user_s_project(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """What is installed by a test that fails goes elsewhere."""
    monkeypatch.setenv("PYTHON_JULIAPKG_PROJECT", str(folder / "elsewhere"))


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def write_project(
    folder: Path, *, without: tuple[str, ...] = (), versions: Mapping[str, str] | None = None
) -> None:
    """Project.toml and Manifest.toml with every package that is needed, but for some."""
    there = {name: uuid for name, uuid in needed().items() if name not in without}
    lines = [f'{name} = "{uuid}"' for name, uuid in there.items()]
    (folder / "Project.toml").write_text("\n".join(["[deps]", *lines, ""]))
    lines = ['julia_version = "1.10.8"', 'manifest_format = "2.0"']
    for name, uuid in there.items():
        version = ({"PythonCall": importlib.metadata.version("juliacall")} | dict(versions or {})).get(
            name, "1.2.3"
        )
        lines += [f"[[deps.{name}]]", f'uuid = "{uuid}"', f'version = "{version}"']
    (folder / "Manifest.toml").write_text("\n".join([*lines, ""]))


def without_julia(elsewhere: Path) -> dict[str, str]:
    """The environment of a process that names no Julia; what it installs nowhere in particular goes elsewhere."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON_JULIACALL_", "PYTHON_JULIAPKG_", "JULIA"))
    } | {"PATH": os.defpath, "PYTHON_JULIAPKG_PROJECT": str(elsewhere)}
