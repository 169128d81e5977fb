"""Whenever the caller is killed, no file of it or of its worker is left; and TMPDIR may be as long as it likes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bridges.jobs import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no files without a name")

CALLER = """
import os, signal, sys
import numpy as np
from bridges.julia import process, protocol
from tests.bridges.jobs import decay, patient_session, solve

moment, worker_told = sys.argv[1], sys.argv[2]

def die(*_):
    if session._worker is not None:
        open(worker_told, "w").write(str(session._worker.pid))
    os.kill(os.getpid(), signal.SIGKILL)

def dies_at(owner, name, *, after):
    found = getattr(owner, name)
    def call(*args, **options):
        if not after:
            die()
        result = found(*args, **options)
        die()
    setattr(owner, name, call)

session = patient_session()
if moment == "process started":
    dies_at(process, "_first_message", after=False)
elif moment == "file made":
    dies_at(protocol.os, "posix_fallocate", after=False)
elif moment == "file as long as it will be":
    dies_at(protocol.os, "posix_fallocate", after=True)
elif moment == "worker told":
    dies_at(protocol.reduction, "send_handle", after=False)
elif moment == "handed over":
    dies_at(protocol.reduction, "send_handle", after=True)
solve(session, (lambda t, y, dy: die()) if moment == "solving" else decay, y0=np.ones(100_000))
print("went through")
if moment == "done":
    die()
"""
MOMENTS = [
    "process started",
    "file made",
    "file as long as it will be",
    "worker told",
    "handed over",
    "solving",
    "done",
]


def ours(folder: str) -> set[str]:
    return {name for name in os.listdir(folder) if name.startswith(("nm_ode", "pymp", "listener"))}


def test_kill_9_at_any_moment_leaves_no_file_and_no_worker(tmp_path: Path) -> None:
    long = tmp_path / ("a folder of a long name " * 6) / "tmp"
    long.mkdir(parents=True)
    assert len(str(long)) > 108  # the most that the name of a socket may have
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else str(long)
    before = ours(memory)
    told = {moment: tmp_path / moment for moment in MOMENTS}
    callers = {
        moment: subprocess.Popen(
            [sys.executable, "-c", CALLER, moment, str(told[moment])],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(long)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for moment in MOMENTS
    }
    for moment, caller in callers.items():
        out, err = caller.communicate(timeout=300)
        assert caller.returncode == -signal.SIGKILL, (moment, err)
        assert out == ("went through\n" if moment == "done" else ""), moment
    assert ours(memory) <= before
    assert not list(long.iterdir())
    workers = [int(path.read_text()) for path in told.values() if path.exists()]
    assert workers
    patience = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < patience:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)


def test_where_a_file_must_have_a_name_it_has_it_no_longer_than_needed(monkeypatch, tmp_path: Path) -> None:
    from bridges.julia.protocol import Vectors

    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr("bridges.julia.protocol._folders", lambda: [str(tmp_path)])
    vectors = Vectors.create(10)
    assert not list(tmp_path.iterdir())
    vectors.rows[:] = 1.5
    assert vectors.rows.sum() == 45
    vectors.close()


def test_a_worker_that_finds_its_caller_by_name(monkeypatch) -> None:
    """As on Windows."""
    from bridges.julia import process
    from tests.bridges.jobs import patient_session, solve

    monkeypatch.setattr(process, "_begin", process._begin_with_name)
    session = patient_session()
    try:
        samples, _ = solve(session)
    finally:
        session.close()
    assert len(samples) == 2
