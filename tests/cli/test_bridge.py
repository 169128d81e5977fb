"""nm-ode bridge."""

from __future__ import annotations

from pathlib import Path

from bridges import EngineError, NoiseMethod
from bridges.julia import installing
from bridges.julia.engine import DiffeqEngine, using_backend


def test_status_says_what_is_missing_and_the_remedy(case: Path, call, monkeypatch) -> None:
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(case.parent))
    result = call("bridge", "status")
    assert result.exit_code == 1
    assert "there is no Julia at /nowhere/julia" in result.output
    assert "nm-ode bridge install" in result.output
    assert call("bridge", "test").exit_code == 1


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
