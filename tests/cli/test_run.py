"""nm-ode run and report: what they print, what they write, how they exit."""

from __future__ import annotations

from pathlib import Path

import pytest

from nm_ode.results.store import StoreWriter
from nm_ode.studies import member
from tests.studies.conftest import TINY


def words(result) -> str:
    return " ".join(result.output.split())


def test_run_prints_the_table_and_where_the_report_is(case: Path, call) -> None:
    result = call("run", case)
    assert result.exit_code == 0
    assert "gradient " in result.stdout
    assert "modified 2 hessian" in result.stdout
    report = next(line.split()[-1] for line in result.stdout.splitlines() if line.startswith("report"))
    assert Path(report).read_text().startswith("<!DOCTYPE html>")
    assert "Done before" in call("run", case).stdout


def test_report_is_made_again_from_the_store(case: Path, call) -> None:
    call("run", case, "--out", "out")
    (case.parent / "out/tiny/report.html").unlink()
    for store in ("out/tiny", "out/tiny/run.zarr"):
        assert call("report", store).exit_code == 0
    assert (case.parent / "out/tiny/report.html").exists()


def test_the_engine_can_be_named(case: Path, call) -> None:
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
        (["report", "tiny.toml"], "tiny.toml is not a store of nm_ode"),
        (["rn"], "No such command"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_exit_code_2(case: Path, call, arguments, sentence: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_brackets_in_a_message_are_text_not_markup(case: Path, call) -> None:
    case.write_text(TINY.replace("[64, 4, 10]", "[60, 4, 10]"))
    result = call("run", case)
    assert result.exit_code == 2
    assert "model.widths[0]: 60 was given" in result.stderr


def test_another_cases_results_are_refused(case: Path, call) -> None:
    call("run", case)
    case.write_text(TINY.replace("lr = 0.1", "lr = 0.2"))
    result = call("run", case)
    assert result.exit_code == 2
    assert "optimizer.lr: 0.1 there, 0.2 here" in result.stderr


def test_a_case_that_fails_is_exit_code_1_and_the_others_still_run(case: Path, call) -> None:
    other = case.with_name("other.toml")
    other.write_text(TINY.replace('"tiny"', '"other"').replace("rtol = 1e-5", "rtol = 1e-5\nmax_rhs = 5"))
    result = call("run", other, case)
    assert result.exit_code == 1
    assert "the limit of 5 right-hand sides was reached" in result.stderr
    assert "gradient " in result.stdout
    assert (case.parent / "results/tiny/report.html").exists()
    assert "What failed" in (case.parent / "results/other/report.html").read_text()


def test_ctrl_c_keeps_what_was_complete_and_says_how_to_go_on(case: Path, call, monkeypatch) -> None:
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(member, "solve", interrupted)
        result = call("run", case)
    assert result.exit_code == 130
    assert "what was complete is kept" in result.stderr
    monkeypatch.setattr(member, "train", None)  # is not called again
    assert call("run", case).exit_code == 0


def test_a_full_disk_fails_the_case_with_a_sentence(case: Path, call, monkeypatch) -> None:
    def full(self, group, dataset):
        raise OSError(28, "No space left on device", str(self.path))

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write", full)
        result = call("run", case)
    assert result.exit_code == 1
    assert "run.zarr: No space left on device" in result.stderr
    assert call("run", case).exit_code == 0


def test_the_users_own_code_is_announced_before_it_runs(case: Path, call) -> None:
    (case.parent / "my_net.py").write_text(
        "from nm_ode.models import mlp\n\n\ndef build(seed):\n    return mlp([64, 4, 10], 'tanh', seed=seed)\n"
    )
    case.write_text(TINY.replace('name = "mlp"\nwidths = [64, 4, 10]', 'python = "my_net.py:build"'))
    result = call("run", case)
    assert result.exit_code == 0, result.output
    assert "my_net.py" in words(result).split("gradient")[0]
    assert "SHA-256" in (case.parent / "results/tiny/report.html").read_text()


def test_nothing_is_said_of_own_code_where_there_is_none(case: Path, call) -> None:
    assert "own code" not in call("run", case).output


def test_run_prints_how_well_the_laws_hold(with_charges: Path, call) -> None:
    result = call("run", with_charges)
    assert result.exit_code == 0
    assert "second order" in result.stdout
    assert "exact + ε" in result.stdout
    assert "norm1 → linear2" in result.stdout


def test_run_prints_stability(case: Path, call) -> None:
    case.write_text(case.read_text().replace("[solver]", "[stability]\npoints = 3\n[solver]"))
    result = call("run", case)
    assert result.exit_code == 0, result.output
    assert "the run is stable below 2." in words(result)
