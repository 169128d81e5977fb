"""What is installed of Julia is read, never guessed; nothing is started, and nothing downloads but when asked to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridges import EngineError, get_engine
from bridges.julia.installing import (
    DECLARED,
    declared,
    install,
    installation,
    needed,
    optional,
    package_statuses,
    require_stochastic,
    worker_environment,
)
from bridges.julia.methods import METHODS, PACKAGES
from bridges.julia.project import SEEN, read_project
from tests.bridges.fake_julia import FakeJulia, executable, without_julia, write_project

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A Julia that is a script, and a project with every package that is needed."""
    folder = tmp_path / "project"
    folder.mkdir()
    write_project(folder)
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(FakeJulia(tmp_path).path))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(folder))
    return folder


def test_all_is_there(project: Path) -> None:
    found = installation()
    assert found.ready
    assert found.project == project
    assert found.missing == ()
    get_engine("diffeq").require_ready()


def test_missing_packages_are_named(project: Path) -> None:
    write_project(project, without=("LinearSolve", "ADTypes"))
    found = installation()
    assert found.missing == ("LinearSolve", "ADTypes")
    with pytest.raises(EngineError, match=r"lacks LinearSolve, ADTypes; run `nm-ode bridge install`"):
        get_engine("diffeq").require_ready()


@pytest.mark.parametrize("name", ["Project.toml", "Manifest.toml"])
def test_a_package_is_there_if_project_and_manifest_have_it(project: Path, name: str) -> None:
    """A dependency of a dependency cannot be imported; one that is not resolved is not installed."""
    before = (project / name).read_text()
    write_project(project, without=("ADTypes",))
    less = (project / name).read_text()
    assert less != before
    write_project(project)
    (project / name).write_text(less)
    assert installation().missing == ("ADTypes",)


def test_without_pythoncall_no_worker_can_start(project: Path) -> None:
    write_project(project, without=("PythonCall",))
    assert installation().missing == ("PythonCall",)


@pytest.mark.parametrize("name", ["Project.toml", "Manifest.toml"])
def test_a_project_that_cannot_be_read_is_named(project: Path, name: str) -> None:
    (project / name).write_text("[[deps")
    assert str(project / name) in installation().lacks


def test_julia_s_own_names_of_the_files_come_first(project: Path) -> None:
    (project / "JuliaManifest.toml").write_text('manifest_format = "2.0"')
    assert set(installation().missing) == set(needed()) - set(optional())
    (project / "JuliaManifest.toml").unlink()
    (project / "JuliaProject.toml").write_text("[deps]")
    assert set(installation().missing) == set(needed()) - set(optional())


def test_a_manifest_may_lie_elsewhere(project: Path) -> None:
    (project / "Manifest.toml").rename(project.parent / "Other.toml")
    text = (project / "Project.toml").read_text()
    (project / "Project.toml").write_text('manifest = "../Other.toml"\n' + text)
    assert installation().ready


def test_a_project_without_what_only_stochastic_flows_need_is_ready(project: Path) -> None:
    require_stochastic()
    write_project(project, without=("StochasticDiffEq",))
    assert installation().ready
    assert installation().without == ("StochasticDiffEq",)
    get_engine("diffeq").require_ready()
    with pytest.raises(EngineError, match=r"StochasticDiffEq .* run `nm-ode bridge install`"):
        require_stochastic()


def test_stochastic_paths_need_a_julia_as_well(project: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    with pytest.raises(EngineError, match=r"no Julia at /nowhere/julia; run `nm-ode bridge install`"):
        require_stochastic()


def test_a_julia_that_is_gone_is_named(project: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    assert installation().lacks == "there is no Julia at /nowhere/julia"


def test_one_of_the_two_variables_is_not_enough(project: Path, monkeypatch) -> None:
    monkeypatch.delenv("PYTHON_JULIACALL_PROJECT")
    assert "must be set together" in installation().lacks


def test_without_a_record_nothing_is_installed(tmp_path: Path, monkeypatch) -> None:
    from juliapkg.state import STATE

    for name in ("EXE", "PROJECT"):
        monkeypatch.delenv(f"PYTHON_JULIACALL_{name}", raising=False)
    monkeypatch.setitem(STATE, "meta", str(tmp_path / "meta.json"))
    assert not installation().ready
    (tmp_path / "meta.json").write_text("{ cut off")
    assert not installation().ready


def test_the_worker_has_our_julia_and_no_way_to_the_network(project: Path) -> None:
    environment = worker_environment()
    assert environment["PATH"].split(os.pathsep)[0] == str(project.parent / "bin")
    assert environment["PYTHON_JULIAPKG_OFFLINE"] == "yes"
    assert environment["JULIA_PKG_OFFLINE"] == "true"
    assert environment["JULIA_NUM_THREADS"] == "1"
    assert environment["PYTHON_JULIACALL_PROJECT"] == str(project)


def test_every_package_that_a_method_needs_is_declared() -> None:
    assert set(PACKAGES) <= set(declared())
    assert {method.package for method in METHODS.values()} == set(PACKAGES)
    assert DECLARED.name == "juliapkg.json"
    assert DECLARED.parent.name == "bridges"


def test_the_declaration_is_one_that_juliapkg_takes() -> None:
    import json

    from juliapkg.compat import Compat
    from juliapkg.deps import PkgSpec

    text = json.loads(DECLARED.read_text())
    assert Compat.parse(text["julia"])
    for name, entry in text["packages"].items():
        PkgSpec(name, entry["uuid"], version=entry["version"])
        Compat.parse(entry["version"])


def test_an_installation_tells_each_line_and_its_end(project: Path, tmp_path: Path, monkeypatch) -> None:
    seen = tmp_path / "environment"
    script = f"echo Locating Julia; env > {seen}; echo Installing packages >&2; exit 0"
    monkeypatch.setattr(sys, "executable", str(executable(tmp_path / "python", f"#!/bin/sh\n{script}\n")))
    lines: list[str] = []
    install(on_line=lines.append)
    assert lines == ["Locating Julia", "Installing packages"]
    assert "PYTHON_JULIAPKG_OFFLINE=no" in seen.read_text()
    install(offline=True, on_line=lines.append)
    assert "PYTHON_JULIAPKG_OFFLINE=yes" in seen.read_text()
    assert "JULIA_PKG_OFFLINE=true" in seen.read_text()


def test_an_installation_that_fails_says_its_last_line(project: Path, tmp_path: Path, monkeypatch) -> None:
    script = "echo could not find Julia; exit 3"
    monkeypatch.setattr(sys, "executable", str(executable(tmp_path / "python", f"#!/bin/sh\n{script}\n")))
    with pytest.raises(EngineError, match="the installation did not work: could not find Julia"):
        install(on_line=lambda line: None)


def test_an_installation_that_leaves_something_out_is_not_called_done(
    project: Path, tmp_path, monkeypatch
) -> None:
    write_project(project, without=("OrdinaryDiffEq",))
    monkeypatch.setattr(sys, "executable", str(executable(tmp_path / "python", f"#!/bin/sh\nexit 0\n")))
    with pytest.raises(
        EngineError, match=r"the installation is not complete: the project .* lacks OrdinaryDiffEq"
    ):
        install(on_line=lambda line: None)
