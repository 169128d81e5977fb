"""The command as a whole."""

from __future__ import annotations

import sys

import pytest

from nm_ode.cli import app, main
from nm_ode.errors import ArgumentError


def test_an_error_that_a_command_lets_through_is_a_sentence_and_an_exit_code(monkeypatch, capsys) -> None:
    before = list(app.registered_commands)

    def wrong() -> None:
        raise ArgumentError("steps must be at least 1; 0 was given")

    try:
        app.command("wrong")(wrong)
        monkeypatch.setattr(sys, "argv", ["nm-ode", "wrong"])
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        app.registered_commands[:] = before
    assert ended.value.code == 2
    assert "steps must be at least 1" in capsys.readouterr().err
