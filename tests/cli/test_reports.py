"""What goes wrong after the computation: a sentence, what is kept, and exit code 1, of `run` and `report` alike."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nm_ode.cli import app
from nm_ode.reporting import report as page
from tests.studies.conftest import TINY


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a case that was run."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "tiny.toml").write_text(TINY)
    with contextlib.chdir(folder):
        assert CliRunner().invoke(app, ["run", "tiny.toml"]).exit_code == 0
    return folder / "results"


@pytest.fixture
def done(case: Path, ran: Path) -> Path:
    """A copy of them, beside their case."""
    shutil.copytree(ran, case.parent / "results")
    return case.parent / "results/tiny"


def both(call, case: Path, store: Path):
    """Of the end of `run`, and of `report`."""
    yield call("run", case)
    yield call("report", store)


def test_a_folder_of_the_reports_name(case: Path, call, done: Path) -> None:
    (done / "report.html").unlink()
    (done / "report.html").mkdir()
    for result in both(call, case, done):
        assert result.exit_code == 1
        assert "report.html cannot be written" in result.stderr
        assert "are kept" in result.stderr
        assert "gradient " in result.stdout
        assert not list(done.glob(".report*"))


def test_no_room_for_the_report(case: Path, call, done: Path, monkeypatch) -> None:
    before = (done / "report.html").read_bytes()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(page, "write_atomically", full)
    for result in both(call, case, done):
        assert result.exit_code == 1
        assert "No space left on device" in result.stderr
        assert (done / "report.html").read_bytes() == before


def test_a_tree_that_no_report_can_be_made_of(case: Path, call, done: Path, monkeypatch) -> None:
    def broken(tree) -> list:
        raise KeyError("layer")

    monkeypatch.setattr(page, "sections", broken)
    for result in both(call, case, done):
        assert result.exit_code == 1
        assert "no report can be made" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("attributes", [{}, {"title": 3}, {"failures": None}])
def test_attributes_that_are_missing_or_foreign(case: Path, call, done: Path, attributes: dict) -> None:
    path = done / "run.zarr/zarr.json"
    content = json.loads(path.read_text())
    content["attributes"] = content["attributes"] | attributes if attributes else {}
    path.write_text(json.dumps(content))
    result = call("report", done)
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_a_case_is_no_store(case: Path, call) -> None:
    result = call("report", case)
    assert result.exit_code == 2
    assert "nm-ode run" in result.stderr
    assert "remove" not in result.stderr


def test_names_are_text_not_markup_nor_mathematics(case: Path, call) -> None:
    (case.parent / "net.py").write_text(
        "from torch import nn\n\n\ndef build(seed):\n"
        "    net = nn.Module()\n"
        "    net.add_module('_$\\\\frac$', nn.Linear(64, 10))\n"
        "    net.forward = net._modules['_$\\\\frac$'].forward\n"
        "    return net\n"
    )
    text = case.read_text().replace('name = "mlp"\nwidths = [64, 4, 10]', 'python = "net.py:build"')
    case.write_text(text.replace("seed = 1", 'seed = 1\ntitle = "[/red] $\\\\frac$ <b> :smile:"'))
    result = call("run", case, "--out", "out[v1]")
    assert result.exit_code == 0, result.output
    assert "[/red] $\\frac$ <b> :smile:" in result.stdout
    assert "out[v1]/tiny/report.html" in result.stdout
    assert "&lt;b&gt;" in (case.parent / "out[v1]/tiny/report.html").read_text()


def test_mistakes_in_several_cases_are_all_told(case: Path, call) -> None:
    for name, edit in (("one", ("[64, 4, 10]", "[60, 4, 10]")), ("other", ("lr = 0.1", "lr = -1"))):
        text = case.read_text().replace('"tiny"', f'"{name}"').replace(*edit)
        (case.parent / f"{name}.toml").write_text(text)
    result = call("run", case, "one.toml", "other.toml", "gone.toml")
    assert result.exit_code == 2
    for fragment in ("model.widths[0]: 60", "optimizer.lr: -1", "no case file gone.toml"):
        assert fragment in result.stderr
    assert not (case.parent / "results").exists()
