"""Sweeps that run in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from nm_ode.cli import app

Call = Callable[..., Result]

SWEEP = """
name = "sweep"
loss = "mse"

[model]
name = "linear"
inputs = 10
outputs = 1

[data]
name = "diabetes"
samples = 20

[optimizer]
lr = 0.1

[training]
steps = 3
save_every = 3

[sweep]
"optimizer.lr" = [0.1, 0.05]
seed = { range = 2 }
"""

OWN = """
import os
import sys

from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))


def build(seed, what="well"):
    print("building", what)
    print("complaining", what, file=sys.stderr)
    if what == "raises" and not os.path.exists(os.path.join(HERE, "mended")):
        raise ValueError("no model today")
    while what == "hangs" and not os.path.exists(os.path.join(HERE, "mended")):
        pass
    if what == "exits":
        sys.exit(3)
    if what == "grows":
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1 << 20)) * 8)
    if what == "dies":
        os.kill(os.getpid(), 9)
    return nn.Linear(10, 1)
"""


def of_own_code(*whats: str, more: str = "") -> str:
    """The sweep over what its model does."""
    return (
        SWEEP.replace('name = "linear"\ninputs = 10\noutputs = 1', 'python = "own.py:build"')
        .replace(
            '"optimizer.lr" = [0.1, 0.05]\nseed = { range = 2 }', f'"model.what" = {list(whats)}\n{more}'
        )
        .replace("'", '"')
    )


@pytest.fixture(autouse=True)
def without_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages take longer than these members."""
    if "with_pages" not in request.fixturenames:
        monkeypatch.setattr("nm_ode.cli.batch._presented", lambda plan: True)
        monkeypatch.setattr("nm_ode.batch.plan.MANY_PAGES", 0)


@pytest.fixture
def with_pages() -> None:
    """The page of a study, and those of its members, are made."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


@pytest.fixture
def call(folder: Path) -> Call:
    """Runs the command in this process; an exception that is no exit is a failure of the test."""

    def invoke(text: str, *arguments: str) -> Result:
        (folder / "sweep.toml").write_text(text)
        result = CliRunner().invoke(app, ["run", "sweep.toml", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
