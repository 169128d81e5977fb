"""nm-ode symmetries."""

from __future__ import annotations

from pathlib import Path

from nm_ode.symmetries.operations.declared import DECLARED
from tests.studies.conftest import CHARGES


def test_symmetries_are_listed_with_their_residuals(with_charges: Path, call) -> None:
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


def test_a_scan_says_what_is_explained(with_charges: Path, call) -> None:
    result = call("symmetries", with_charges, "--scan")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "conserved directions" in text
    assert "explained by the symmetries above" in text


def test_what_ended_a_parameter_is_explained(with_charges: Path, call) -> None:
    result = call("symmetries", with_charges, "--explain")
    assert result.exit_code == 0
    assert "ended by" in result.stdout
    assert "cross_entropy_loss in the loss" in " ".join(result.stdout.split())


def test_a_scan_of_a_large_model_is_a_mistake(with_charges: Path, call) -> None:
    with_charges.write_text(CHARGES.replace("[64, 6, 10]", "[64, 900, 10]"))
    result = call("symmetries", with_charges, "--scan")
    assert result.exit_code == 2
    assert "scan a narrower model" in result.stderr


def test_a_defect_is_told_and_fails(with_charges: Path, call, monkeypatch) -> None:
    with_charges.write_text(CHARGES.replace('"relu"\nnorm = "batch"', '"tanh"'))
    monkeypatch.setitem(DECLARED, "tanh", DECLARED["relu"])
    result = call("symmetries", with_charges)
    assert result.exit_code == 1
    assert "defect of nm_ode" in result.stderr
    assert "rescale" not in result.stdout
    assert call("run", with_charges).exit_code == 1


def test_symmetries_of_a_case_that_is_not_there(case: Path, call) -> None:
    result = call("symmetries", "digits_vitt")
    assert result.exit_code == 2
    assert "did you mean 'digits_vit'" in result.stderr
