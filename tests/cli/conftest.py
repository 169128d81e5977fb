"""The command, called as a user would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from nm_ode.cli import app
from tests.studies.conftest import CHARGES, TINY

Call = Callable[..., Result]


@pytest.fixture
def call() -> Call:
    """Runs the command; an exception that is not an exit is a failure of the test."""

    def invoke(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def case(tmp_path: Path, monkeypatch) -> Path:
    """A small case, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def with_charges(case: Path) -> Path:
    """A small case with symmetries beside it."""
    path = case.parent / "charges.toml"
    path.write_text(CHARGES)
    return path
