"""The pages of members: drawn by what computed them, whatever ends that; missing ones again at the end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from nm_ode.batch.child import MemberProcess
from nm_ode.batch.plan import plan_sweep
from nm_ode.reporting.report import ReportError
from nm_ode.reporting.study import members
from nm_ode.results.remote import folder_at
from nm_ode.studies import load_sweep
from tests.batch.conftest import SWEEP, Call, of_own_code

ALONE = ("--workers", "0")
SMALL = SWEEP.replace("range = 2", "range = 1")
pytestmark = pytest.mark.usefixtures("with_pages")


def pages(folder: Path) -> dict[str, bytes]:
    """By the member's name."""
    return {page.stem: page.read_bytes() for page in (folder / "results/sweep/members").glob("*.html")}


def test_pages_are_those_that_the_report_draws_and_each_is_drawn_once(
    call: Call, folder: Path, monkeypatch
) -> None:
    drawn, real = [], members.report_html
    monkeypatch.setattr(members, "report_html", lambda tree: drawn.append(1) or real(tree))
    with monkeypatch.context() as patched:
        patched.setattr("nm_ode.cli.batch._presented", lambda plan: True)
        assert call(SMALL, *ALONE).exit_code == 0
    assert len(drawn) == 2
    there = pages(folder)
    (folder / "results/sweep/members/lr=0.1,seed=0.html").unlink()
    again = call(SMALL, *ALONE)
    assert again.exit_code == 0, again.output
    assert "done before" in again.output
    assert len(drawn) == 3
    assert pages(folder) == there
    assert len(there) == 2
    assert "a page of " not in (folder / "results/sweep/report.html").read_text()


def test_of_many_members_none_is_drawn_unasked(call: Call, folder: Path, monkeypatch) -> None:
    for place in ("plan", "tasks"):
        monkeypatch.setattr(f"nm_ode.batch.{place}.MANY_PAGES", 1)
    done = call(SMALL, *ALONE)
    assert done.exit_code == 0
    assert "--pages" in done.output
    assert not pages(folder)
    assert "No member has a page of its own" in (folder / "results/sweep/report.html").read_text()


def test_a_page_that_cannot_be_drawn_is_said_to_be_missing(call: Call, folder: Path, monkeypatch) -> None:
    """Its member is whole all the same, and the others have theirs."""
    real = members.report_html

    def failing(tree) -> str:
        if "0.05" in tree.attrs["case"]:
            raise ReportError("no ink")
        return real(tree)

    monkeypatch.setattr(members, "report_html", failing)
    done = call(SMALL, *ALONE)
    assert done.exit_code == 1
    assert "2 of 2 members whole" in done.output
    assert done.output.count("the page of lr=0.05,seed=0: no ink") == 1
    assert len(pages(folder)) == 1
    report = folder / "results/sweep/report.html"
    assert "Without a page of their own: lr=0.05,seed=0;" in report.read_text()
    monkeypatch.setattr(members, "report_html", real)
    assert call(SMALL, *ALONE).exit_code == 0
    assert len(pages(folder)) == 2
    assert "a page of " not in report.read_text()


def test_killed_while_drawing(call: Call, folder: Path) -> None:
    """The member is whole, and not computed again; its page is drawn at the end."""
    mortal = """
import os
from matplotlib.figure import Figure
from torch import nn


def build(seed, what="well"):
    Figure.savefig = lambda *given, **more: os.kill(os.getpid(), 9)
    return nn.Linear(10, 1)
"""
    (folder / "own.py").write_text(mortal)
    (folder / "sweep.toml").write_text(of_own_code("well"))
    sweep = load_sweep(folder / "sweep.toml")
    plan = plan_sweep(sweep, "results", None, "a batch")
    plan.store.begin(sweep.record)
    process = MemberProcess()
    try:
        process.start()
        running = process._process
        outcome = process.ask(plan.tasks[0], lambda: True)
        assert running.wait(timeout=60) == -9
    finally:
        process.end()
    assert (outcome.status, outcome.member) == ("done", "what=well")
    assert not pages(folder)
    left = folder / "results/sweep/members/.what=well.html-0123abcd"
    left.parent.mkdir(exist_ok=True)
    left.write_text("<html>")
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    again = call(of_own_code("well"), *ALONE)
    assert again.exit_code == 0, again.output
    assert "done before" in again.output
    assert list(pages(folder)) == ["what=well"]
    assert not left.exists()


def test_behind_a_url(call: Call, folder: Path) -> None:
    out = f"memory://{folder.name}"
    done = call(SMALL, *ALONE, "--out", out, "--scratch", str(folder / "scratch"))
    assert done.exit_code == 0, done.output
    there = folder_at(out).below("sweep")
    assert len(there.names("members")) == 2
    assert "a page of " not in there.read("report.html").decode()
