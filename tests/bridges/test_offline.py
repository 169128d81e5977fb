"""`install(offline=True)` makes the project from what the depot has, or leaves it as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bridges import EngineError
from bridges.julia import offline
from bridges.julia.installing import declared, install, installation, needed
from tests.bridges.equations import needs_julia
from tests.bridges.fake_julia import FakeJulia, keep_from_the_user_s_project, write_project
from tests.bridges.jobs import ROOT

THEIRS = """# Mine.
title = "mine"

[deps]
Example = "7876af07-990d-54b4-ab0e-23690620f79a"

[compat]
Example = "0.5"
LinearSolve = "99"
"""


def install_offline() -> None:
    install(offline=True, on_line=lambda line: None)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch) -> None:
    keep_from_the_user_s_project(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A project that the user named, empty."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(tmp_path / "bin/julia"))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(project))
    return project


def test_the_project_says_what_is_declared_and_within_which_bounds(tmp_path: Path, folder: Path) -> None:
    from juliapkg.compat import Compat

    FakeJulia(tmp_path)
    install_offline()
    text = tomllib.loads((folder / "Project.toml").read_text())
    assert text["deps"].items() >= needed().items()
    assert set(text["compat"]) >= set(declared())
    assert all(Compat.parse(bound) for bound in text["compat"].values())


def test_julia_is_kept_from_the_network_before_it_adds_anything(tmp_path: Path, folder: Path) -> None:
    julia = FakeJulia(tmp_path)
    install_offline()
    (call,) = julia.calls
    lines = call["script"].splitlines()
    assert lines[:2] == ["import Pkg", "Pkg.offline(true)"]
    steps = [line.partition("(")[0] for line in lines]
    assert [step for step in steps if step.startswith("Pkg.")] == [
        "Pkg.offline",
        "Pkg.add",
        "Pkg.resolve",
        "Pkg.instantiate",
        "Pkg.precompile",
    ]
    assert "Registry.update" not in call["script"]
    assert all(uuid in call["script"] for uuid in needed().values())
    assert call["environment"]["JULIA_PKG_OFFLINE"] == "true"


def test_an_empty_variable_says_something_to_julia(tmp_path: Path, folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("JULIA_PKG_SERVER", "")
    julia = FakeJulia(tmp_path)
    install_offline()
    assert julia.calls[0]["environment"]["JULIA_PKG_SERVER"] == ""


def test_the_julia_is_recorded_as_juliapkg_does(tmp_path: Path, folder: Path) -> None:
    import json

    julia = FakeJulia(tmp_path, version="1.11.2")
    install_offline()
    meta = json.loads((folder / "pyjuliapkg/meta.json").read_text())
    assert (meta["executable"], meta["version"]) == (str(julia.path), "1.11.2")
    assert meta["libjulia"] == "/lib/libjulia.so"
    assert {package["name"] for package in meta["pkgs"]} >= set(needed())


def test_what_else_a_named_project_has_is_kept(tmp_path: Path, folder: Path) -> None:
    julia = FakeJulia(tmp_path)
    (folder / "Project.toml").write_text(THEIRS)
    (folder / "Manifest.toml").write_text("")
    install_offline()
    text = (folder / "Project.toml").read_text()
    assert text.startswith('# Mine.\ntitle = "mine"')
    found = tomllib.loads(text)
    assert found["deps"]["Example"].startswith("7876af07")
    assert found["compat"]["Example"] == "0.5"
    assert found["compat"]["LinearSolve"] != "99"
    assert julia.calls[0]["manifest"]


def test_a_project_of_juliapkg_s_own_is_made_anew(tmp_path: Path, monkeypatch) -> None:
    from juliapkg.state import STATE

    julia, folder = FakeJulia(tmp_path), tmp_path / "own"
    folder.mkdir()
    for name, value in {
        "project": str(folder),
        "project_is_shared": False,
        "override_executable": str(julia.path),
        "meta": str(folder / "pyjuliapkg/meta.json"),
        "deps": str(folder / "pyjuliapkg/juliapkg.json"),
        "install": str(folder / "pyjuliapkg/install"),
        "offline": True,
        **dict.fromkeys(("resolved", "executable", "version", "libjulia", "bindir")),
    }.items():
        monkeypatch.setitem(STATE, name, value)
    (folder / "Project.toml").write_text(THEIRS)
    (folder / "Manifest.toml").write_text("")
    offline.main()
    assert "Example" not in (folder / "Project.toml").read_text()
    assert not julia.calls[0]["manifest"]
    for name in ("EXE", "PROJECT"):
        monkeypatch.delenv(f"PYTHON_JULIACALL_{name}", raising=False)
    assert installation().ready
    assert installation().project == folder


@pytest.mark.parametrize("project_is_there", [False, True])
def test_a_failure_leaves_the_project_as_it_was(tmp_path: Path, folder: Path, project_is_there: bool) -> None:
    """The fake one writes a manifest before it fails."""
    FakeJulia(tmp_path, says="ERROR: expected package `X` to be registered\nStacktrace:", status=1)
    if project_is_there:
        write_project(folder, versions={"LinearSolve": "3.75.0"})
    names = ("Project.toml", "Manifest.toml")
    before = {name: (folder / name).read_bytes() for name in names if project_is_there}
    with pytest.raises(EngineError, match=r"`X` to be registered; run `nm-ode bridge install`.* depot"):
        install_offline()
    assert {name: (folder / name).read_bytes() for name in names if (folder / name).exists()} == before
    assert installation().ready == project_is_there


@pytest.mark.parametrize("in_background", [False, True])
def test_an_interrupt_ends_julia_and_leaves_the_project_as_it_was(
    tmp_path: Path, folder: Path, python_sigint: None, in_background: bool
) -> None:
    if in_background:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    julia = FakeJulia(tmp_path, says="Precompiling", seconds=600)
    write_project(folder)
    before = (folder / "Manifest.toml").read_bytes()

    def interrupted(line: str) -> None:
        if line == "Precompiling":
            assert (folder / "Manifest.toml").read_bytes() != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(offline=True, on_line=interrupted)
    assert (folder / "Manifest.toml").read_bytes() == before
    with pytest.raises(ProcessLookupError):
        os.kill(julia.calls[0]["pid"], 0)


def test_a_julia_that_says_nothing_and_fails_is_an_error_too(tmp_path: Path, folder: Path) -> None:
    FakeJulia(tmp_path, status=3)
    with pytest.raises(EngineError, match=r"status 3; run `nm-ode bridge install`"):
        install_offline()


def test_without_a_julia_none_is_fetched(tmp_path: Path, monkeypatch) -> None:
    from juliapkg.state import STATE

    for name in ("EXE", "PROJECT"):
        monkeypatch.delenv(f"PYTHON_JULIACALL_{name}", raising=False)
    monkeypatch.setitem(STATE, "project", str(tmp_path / "none"))
    monkeypatch.setitem(STATE, "project_is_shared", True)
    monkeypatch.setitem(STATE, "override_executable", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JULIAUP_DEPOT_PATH", str(tmp_path))
    with pytest.raises(
        EngineError, match=r"could not find Julia .*; put a Julia of that version on the path"
    ):
        install_offline()
    assert not (tmp_path / "none").exists()


SOLVE = """
import numpy as np
from bridges import OdeProblem, get_engine

def decay(t, y, dy):
    dy[:] = -y

samples = []
problem = OdeProblem(decay, np.ones(1), np.array([0.0, 1.0]))
get_engine("diffeq").solve(problem, "Vern9", lambda index, t, y: samples.append(float(y[0])))
assert abs(samples[-1] - np.exp(-1)) < 1e-3, samples
"""


@pytest.mark.slow
@needs_julia[0]
@needs_julia[1]
def test_a_project_made_offline_solves(tmp_path: Path, monkeypatch) -> None:
    """By the real Julia, whose depot has all from the installation before; in a project of its own."""
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(installation().julia))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(tmp_path / "project"))
    monkeypatch.setenv("JULIA_PKG_SERVER", "")
    install_offline()
    assert installation().project == tmp_path / "project"
    done = subprocess.run(
        [sys.executable, "-c", SOLVE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
