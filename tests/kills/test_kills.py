"""Whenever a run is killed, the next one gives the same bits, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process")
def test_a_run_that_is_killed_anywhere_is_gone_on_with_to_the_same_bits(tmp_path: Path) -> None:
    assert _kills("scenarios", tmp_path) > 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process")
def test_a_study_that_is_killed_anywhere_has_whole_members_and_is_gone_on_with(tmp_path: Path) -> None:
    assert _kills("study_scenarios", tmp_path) > 50


def _kills(scenarios: str, folder: Path) -> int:
    """How many kills there were; none with a fault."""
    # A process of its own: forks want few threads.
    command = [sys.executable, "-m", f"tests.kills.{scenarios}", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    *wrong, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0, done.stderr
    assert wrong == []
    return int(last.split()[0])
