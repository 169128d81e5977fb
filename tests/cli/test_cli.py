"""The command: what it prints and how it exits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridges.julia.engine import DiffeqEngine, using_backend
from bridges.julia.installing import installation
from nm_ode.cli import app
from nm_ode.results.store import StoreWriter
from nm_ode.studies import runner
from tests.bridges.toy_engine import toy_registered
from tests.studies.conftest import CHARGES, TINY


@pytest.fixture
def case(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def call(*arguments: str | Path):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_run_prints_the_table_and_where_the_report_is(case: Path) -> None:
    result = call("run", case)
    assert result.exit_code == 0
    assert "gradient " in result.stdout
    assert "modified 2 hessian" in result.stdout
    report = next(line.split()[-1] for line in result.stdout.splitlines() if line.startswith("report"))
    assert Path(report).read_text().startswith("<!DOCTYPE html>")
    assert "Done before" in call("run", case).stdout


def test_report_is_made_again_from_the_store(case: Path) -> None:
    call("run", case, "--out", "out")
    (case.parent / "out/tiny/report.html").unlink()
    for store in ("out/tiny", "out/tiny/run.zarr"):
        assert call("report", store).exit_code == 0
    assert (case.parent / "out/tiny/report.html").exists()


def test_the_engine_can_be_named(case: Path) -> None:
    result = call("run", case, "--engine", "sundials")
    assert result.exit_code == 0
    assert "BDF" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nope.toml"], "no case file nope.toml"),
        (["run", "digits_mpl"], "did you mean 'digits_mlp'?"),
        (["run", "tiny.toml", "tiny.toml"], "two cases are called 'tiny'"),
        (["run", "tiny.toml", "--engine", "sundail"], "did you mean 'sundials'?"),
        (["run", "tiny.toml", "--out", "tiny.toml"], "cannot be written"),
        (["report", "nowhere"], "no store at nowhere"),
        (["report", "tiny.toml"], "not a Zarr v3 store"),
        (["rn"], "No such command"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_exit_code_2(case: Path, arguments, sentence: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_brackets_in_a_message_are_text_not_markup(case: Path) -> None:
    case.write_text(TINY.replace("[64, 4, 10]", "[60, 4, 10]"))
    result = call("run", case)
    assert result.exit_code == 2
    assert "model.widths[0]: 60 was given" in result.stderr


def test_another_cases_results_are_refused(case: Path) -> None:
    call("run", case)
    case.write_text(TINY.replace("lr = 0.1", "lr = 0.2"))
    result = call("run", case)
    assert result.exit_code == 2
    assert "optimizer.lr: 0.1 there, 0.2 here" in result.stderr


def test_a_case_that_fails_is_exit_code_1_and_the_others_still_run(case: Path) -> None:
    other = case.with_name("other.toml")
    other.write_text(TINY.replace('"tiny"', '"other"').replace("rtol = 1e-5", "rtol = 1e-5\nmax_rhs = 5"))
    result = call("run", other, case)
    assert result.exit_code == 1
    assert "the limit of 5 right-hand sides was reached" in result.stderr
    assert "gradient " in result.stdout
    assert (case.parent / "results/tiny/report.html").exists()
    assert "What failed" in (case.parent / "results/other/report.html").read_text()


def test_ctrl_c_keeps_what_was_complete_and_says_how_to_go_on(case: Path, monkeypatch) -> None:
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "solve", interrupted)
        result = call("run", case)
    assert result.exit_code == 1
    assert "interrupted; what was complete is kept, run the same command to go on" in result.stderr
    monkeypatch.setattr(runner, "train", None)
    assert call("run", case).exit_code == 0


def test_a_full_disk_fails_the_case_with_a_sentence(case: Path, monkeypatch) -> None:
    def full(self, group, dataset):
        raise OSError(28, "No space left on device", str(self.path))

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write", full)
        result = call("run", case)
    assert result.exit_code == 1
    assert "run.zarr: No space left on device; what was complete is kept" in result.stderr
    assert call("run", case).exit_code == 0


def test_cases_lists_shipped_ones_and_those_here(case: Path) -> None:
    (case.parent / "cases").mkdir()
    case.rename(case.parent / "cases/tiny.toml")
    (case.parent / "cases/broken.toml").write_text("name = 3")
    result = call("cases")
    assert result.exit_code == 0
    for name in ("digits_mlp", "diabetes_linear", "tiny", "does not load"):
        assert name in result.stdout


def test_doctor_tries_every_engine(case: Path) -> None:
    result = call("doctor")
    assert result.exit_code == 0
    for text in ("sundials", "scipy", "diffeq", "cpu", "torch"):
        assert text in result.stdout


def test_doctor_speaks_json(case: Path) -> None:
    found = json.loads(call("doctor", "--json").stdout)
    works = {engine["name"]: engine["works"] for engine in found["engines"]}
    assert works == {"scipy": True, "sundials": True, "diffeq": installation().ready}
    assert all(finding["remedy"] for finding in found["engines"] if not finding["works"])
    assert found["versions"]["torch"].startswith("2.")


def test_doctor_tries_a_new_engine_without_being_told_of_it(case: Path) -> None:
    with toy_registered():
        found = {engine["name"]: engine for engine in json.loads(call("doctor", "--json").stdout)["engines"]}
    assert found["toy"]["works"]
    assert "RK4" in found["toy"]["detail"]


def test_help_teaches() -> None:
    text = call("--help").stdout
    for word in ("run", "report", "cases", "doctor", "Exit codes", "digits_mlp"):
        assert word in text
    assert call("run", "--help").exit_code == 0


@pytest.fixture
def with_charges(case: Path) -> Path:
    path = case.parent / "charges.toml"
    path.write_text(CHARGES)
    return path


def test_symmetries_are_listed_with_their_residuals(with_charges: Path) -> None:
    result = call("symmetries", with_charges)
    assert result.exit_code == 0
    scale = next(
        line for line in map(str.split, result.stdout.splitlines()) if line[:2] == ["scale", "linear1"]
    )
    assert scale[2] == "6"
    gradient, of_epsilon, left, hessian = map(float, scale[3:])
    assert gradient == of_epsilon > 1e-9
    assert left < 1e-10
    assert hessian < 1e-10
    assert "25 charges: 13 translation, 6 scale, 6 rescale" in result.stdout


def test_a_scan_says_what_is_explained(with_charges: Path) -> None:
    result = call("symmetries", with_charges, "--scan")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "conserved directions" in text
    assert "explained by the symmetries above" in text


def test_a_scan_of_a_large_model_is_a_mistake(with_charges: Path) -> None:
    with_charges.write_text(CHARGES.replace("[64, 6, 10]", "[64, 900, 10]"))
    result = call("symmetries", with_charges, "--scan")
    assert result.exit_code == 2
    assert "scan a narrower model" in result.stderr


def test_a_defect_is_told_and_fails(with_charges: Path, monkeypatch) -> None:
    from nm_ode.symmetries import scaling

    with_charges.write_text(CHARGES.replace('"relu"\nnorm = "batch"', '"tanh"'))
    monkeypatch.setitem(scaling._RULES, "tanh", scaling._RULES["relu"])
    result = call("symmetries", with_charges)
    assert result.exit_code == 1
    assert "defect of nm_ode" in result.stderr
    assert "rescale" not in result.stdout
    assert call("run", with_charges).exit_code == 1


def test_run_prints_how_well_the_laws_hold(with_charges: Path) -> None:
    result = call("run", with_charges)
    assert result.exit_code == 0
    assert "second order" in result.stdout
    assert "exact + ε" in result.stdout
    assert "norm1 → linear2" in result.stdout


def test_symmetries_of_a_case_that_is_not_there(case: Path) -> None:
    result = call("symmetries", "digits_vitt")
    assert result.exit_code == 2
    assert "did you mean 'digits_vit'" in result.stderr


def test_run_prints_orders_and_stability(case: Path) -> None:
    text = case.read_text().replace(
        "[solver]", "[ladder]\nlr = [0.2, 0.1, 0.05]\n[stability]\npoints = 3\n[solver]"
    )
    case.write_text(text)
    result = call("run", case)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert re.search(r"gradient 1\.0\d ± 0\.0\d 1 .*3/3", words)
    assert "the run is stable below 2." in words


def test_an_order_that_falls_short_is_explained(case: Path) -> None:
    case.write_text(
        case.read_text()
        .replace("[solver]", "[ladder]\nlr = [0.2, 0.1, 0.05]\n[solver]")
        .replace("rtol = 1e-5", "rtol = 1e-1")
    )
    words = " ".join(call("run", case).output.split())
    assert "the solver's own error is above a tenth of what is measured: tighten solver.rtol" in words


def test_cases_say_what_they_compare(case: Path) -> None:
    words = " ".join(call("cases").output.split())
    assert "orders" in words
    assert "sharpness" in words


def test_bridge_status_says_what_is_missing_and_the_remedy(case: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(case.parent))
    result = call("bridge", "status")
    assert result.exit_code == 1
    assert "there is no Julia at /nowhere/julia; run `nm-ode bridge install`" in result.output
    assert call("bridge", "test").exit_code == 1


def test_bridge_test_tries_every_method(case: Path, monkeypatch) -> None:
    """With SciPy standing in for Julia; few methods, for time."""
    few = {name: DiffeqEngine.methods[name] for name in ("Vern9", "RK4")}
    monkeypatch.setattr(DiffeqEngine, "methods", few)
    with using_backend("tests.bridges.stand_in:StandIn"):
        result = call("bridge", "test")
    assert result.exit_code == 0, result.output
    for text in (
        "StandIn (SciPy)",
        "Vern9",
        "RK4",
        "decay",
        "oscillator",
        "Prothero and Robinson",
        "µs each",
    ):
        assert text in result.output


def test_bridge_install_passes_on_what_fails(case: Path, monkeypatch) -> None:
    from bridges import EngineError
    from bridges.julia import installing

    def fails(*, offline: bool, on_line) -> None:
        on_line("Locating Julia")
        raise EngineError("the installation did not work: no network")

    monkeypatch.setattr(installing, "install", fails)
    result = call("bridge", "install")
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert "about 1 GB to download" in words
    assert "Locating Julia" in words
    assert "no network" in words
