"""nm-ode bridge."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from bridges import EngineError, NoiseMethod
from bridges.julia import installing
from bridges.julia.engine import DiffeqEngine, using_backend
from bridges.julia.installing import needed
from bridges.julia.project import SEEN
from tests.bridges.fake_julia import FakeJulia, keep_from_the_user_s_project, write_project


def test_status_says_what_is_missing_and_the_remedy(case: Path, call, monkeypatch) -> None:
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(case.parent))
    result = call("bridge", "status")
    assert result.exit_code == 1
    assert "there is no Julia at /nowhere/julia" in result.output
    assert "nm-ode bridge install" in result.output
    assert call("bridge", "test").exit_code == 1


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch) -> None:
    keep_from_the_user_s_project(monkeypatch, tmp_path)


@pytest.fixture
def project(case: Path, monkeypatch) -> Path:
    """Of a Julia that is a script; with nothing in it."""
    folder = case.parent / "project"
    folder.mkdir()
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(FakeJulia(case.parent).path))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(folder))
    return folder


def test_status_says_of_each_package_what_there_is(project: Path, call) -> None:
    versions = {"OrdinaryDiffEq": "7.0.0", "LinearSolve": "3.80.1"}
    write_project(project, without=("StochasticDiffEq",), versions=versions)
    result = call("bridge", "status")
    assert result.exit_code == 0
    assert "ready" in result.output
    lines = {line.split()[1]: line for line in result.output.splitlines() if line.startswith("package")}
    assert {name.rstrip(":") for name in lines} == {"julia", *needed()}
    assert "7.0.0" in lines["OrdinaryDiffEq"]
    assert "seen running" in lines["OrdinaryDiffEq"]
    assert "3.80.1" in lines["LinearSolve"]
    assert "3.75 was seen" in lines["LinearSolve"]
    assert "missing" in lines["StochasticDiffEq:"]
    assert "stochastic flows" in lines["StochasticDiffEq:"]
    assert "nm-ode bridge test" in result.output


def test_status_of_the_set_that_was_seen_has_nothing_to_add(project: Path, call, monkeypatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: SEEN["PythonCall"])
    write_project(project, versions=SEEN)
    result = call("bridge", "status")
    assert result.exit_code == 0
    assert "bridge test" not in result.output


def test_status_of_a_project_that_cannot_be_read(project: Path, call) -> None:
    (project / "Project.toml").write_text("[deps")
    result = call("bridge", "status")
    assert result.exit_code == 1
    assert str(project / "Project.toml") in "".join(result.output.split("\n"))


@pytest.mark.parametrize("flags", [(), ("--offline",)])
def test_install_ends_with_where_it_installed(project: Path, call, flags) -> None:
    result = call("bridge", "install", *flags)
    assert result.exit_code == 0, result.output
    assert f"project {project}" in result.output
    assert "missing" not in call("bridge", "status").output


def test_every_method_is_tried(case: Path, call, monkeypatch) -> None:
    """With SciPy standing in for Julia; few methods, for time."""
    few = {name: DiffeqEngine.methods[name] for name in ("Vern9", "RK4")}
    monkeypatch.setattr(DiffeqEngine, "methods", few)
    with using_backend("tests.bridges.stand_in:StandIn"):
        result = call("bridge", "test")
    assert result.exit_code == 0, result.output
    problems = ("decay", "oscillator", "Prothero and Robinson")
    for text in ("StandIn (SciPy)", *few, *problems, "µs each", *DiffeqEngine.noise_methods, "variance"):
        assert text in result.output


def test_stochastic_methods_that_are_wrong_are_named(case: Path, call, monkeypatch) -> None:
    names = ("EM", "SOSRA, variance 1.7", "no such method")
    methods = {name: NoiseMethod(strong_order=1, weak_order=1) for name in names}
    monkeypatch.setattr(DiffeqEngine, "methods", {"Vern9": DiffeqEngine.methods["Vern9"]})
    monkeypatch.setattr(DiffeqEngine, "noise_methods", methods)
    with using_backend("tests.bridges.stand_in:StandIn"):
        result = call("bridge", "test")
    assert result.exit_code == 1
    table, _, last = result.output.partition("error:")
    assert all(name in table for name in (*names, "diagonal", "matrix", "variance"))
    assert "SOSRA, variance 1.7" in last
    assert "StochasticDiffEq has no method" in last
    assert "EM" not in last


def test_without_stochastic_methods_the_others_are_tried(case: Path, call, monkeypatch) -> None:
    def lacks(engine: DiffeqEngine) -> None:
        raise EngineError("StochasticDiffEq is not in Julia's project")

    monkeypatch.setattr(DiffeqEngine, "methods", {"Vern9": DiffeqEngine.methods["Vern9"]})
    monkeypatch.setattr(DiffeqEngine, "require_noise_ready", lacks)
    with using_backend("tests.bridges.stand_in:StandIn"):
        result = call("bridge", "test")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "not tried: StochasticDiffEq is not in Julia's project" in words
    assert "SOSRA" not in words


def test_install_passes_on_what_fails(case: Path, call, monkeypatch) -> None:
    def fails(*, offline: bool, on_line) -> None:
        on_line("Locating Julia")
        raise EngineError("the installation did not work: no network")

    monkeypatch.setattr(installing, "install", fails)
    result = call("bridge", "install")
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    for text in ("about 1 GB to download", "Locating Julia", "no network"):
        assert text in words
