"""nm-ode cases, and the help text."""

from __future__ import annotations

from pathlib import Path

from nm_ode.cli.app import COMMANDS


def test_cases_lists_shipped_ones_and_those_here(case: Path, call) -> None:
    (case.parent / "cases").mkdir()
    case.rename(case.parent / "cases/tiny.toml")
    (case.parent / "cases/broken.toml").write_text("name = 3")
    result = call("cases")
    assert result.exit_code == 0
    for name in ("digits_mlp", "diabetes_linear", "tiny", "does not load"):
        assert name in result.stdout


def test_cases_say_what_they_compare(case: Path, call) -> None:
    words = " ".join(call("cases").output.split())
    assert "orders" in words
    assert "sharpness" in words


def test_help_teaches(call) -> None:
    text = call("--help").stdout
    for word in (*(command.__name__ for command in COMMANDS), "bridge", "Exit codes", "digits_mlp"):
        assert word in text
    assert call("run", "--help").exit_code == 0
