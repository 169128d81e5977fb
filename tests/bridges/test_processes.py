"""Workers start, and end with their parents; forks and pools have their own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bridges.julia.engine import shared_session
from bridges.julia.process import WorkerError
from bridges.julia.session import WorkerSession
from tests.bridges.jobs import ROOT, STAND_IN, patient_session, solve


@pytest.mark.skipif(os.name != "posix", reason="looks at process groups")
def test_ctrl_c_in_a_terminal_does_not_reach_the_worker() -> None:
    session = patient_session()
    solve(session)
    assert session.pid is not None
    assert os.getpgid(session.pid) != os.getpgid(0)
    session.close()
    assert session.pid is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_a_worker_of_its_own() -> None:
    code = (
        "import os, sys\n"
        "from tests.bridges.jobs import patient_session, solve\n"
        "w = patient_session(); solve(w); mine = w.pid\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    solve(w); os._exit(0 if w.pid != mine else 1)\n"
        "_, status = os.waitpid(child, 0)\n"
        "solve(w)\n"
        "sys.exit(os.waitstatus_to_exitcode(status) or w.pid != mine)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=600).returncode == 0


def solve_somewhere(n: int) -> tuple[int, int, float]:
    session = shared_session(STAND_IN)
    samples, _ = solve(session, y0=np.ones(n))
    return os.getpid(), session.pid or 0, float(samples[-1][0])


def test_the_processes_of_a_pool_have_a_worker_each() -> None:
    """As Dask's and multiprocessing's workers do, which are daemons."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(solve_somewhere, [1, 2, 3, 4], chunksize=1)
    for _, _, last in found:
        assert last == pytest.approx(np.exp(-1))
    workers = {process: worker for process, worker, _ in found}
    assert len(set(workers.values())) == len(workers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_another_thread_solves() -> None:
    code = (
        "import os, sys, threading, time\n"
        "from tests.bridges.jobs import decay, patient_session, solve\n"
        "w = patient_session(); solve(w)\n"
        "slow = lambda t, y, dy: (begun.set(), time.sleep(0.02), decay(t, y, dy))\n"
        "begun = threading.Event()\n"
        "thread = threading.Thread(target=solve, args=(w, slow)); thread.start(); begun.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    solve(w); os._exit(0)\n"
        "_, status = os.waitpid(child, 0)\n"
        "thread.join()\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=600).returncode == 0


def alive(pid: int) -> bool:
    """Not a zombie either: nobody may be there to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


ENDINGS = {
    "exit": "pass",
    "exception": "raise ValueError('over')",
    "hard exit": "os._exit(0)",
    "killed": "os.kill(os.getpid(), 9)",
    "killed in a solve": ("solve(w, lambda t, y, dy: os.kill(os.getpid(), 9))"),
    "killed while it computes": (
        "import threading; timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), 9));"
        "solve(w, method='computes for ever', on_sample=lambda *_: timer.start())"
    ),
}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_does_not_outlive_its_parent(ending: str) -> None:
    code = (
        "import os\n"
        "from tests.bridges.jobs import patient_session, solve\n"
        "w = patient_session(); solve(w)\n"
        "print(w.pid, flush=True)\n" + ENDINGS[ending]
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=600, capture_output=True, text=True)
    pid = int(done.stdout.split()[0])
    deadline = time.monotonic() + 120
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_what_the_worker_prints_is_in_the_log(caplog) -> None:
    made = patient_session()
    with caplog.at_level(logging.INFO, logger="bridges.julia"):
        solve(made)
        made.close()
        deadline = time.monotonic() + 120  # a thread reads what it prints
        while "a line on standard output" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "a line on standard output" in caplog.text


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("NM_ODE_STAND_IN_FAILS", "could not start: RuntimeError: nothing to stand in for"),
        (
            "NM_ODE_STAND_IN_DIES",
            "could not start: it ended with status 7; the last lines .*falling over",
        ),
    ],
)
def test_a_worker_that_cannot_start_says_why(variable: str, sentence: str) -> None:
    made = WorkerSession(STAND_IN, environment=lambda: {**os.environ, variable: "1"})
    with pytest.raises(WorkerError, match=sentence):
        solve(made)


def test_a_worker_that_is_not_there() -> None:
    with pytest.raises(WorkerError, match=r"could not start: ModuleNotFoundError: No module named 'nowhere'"):
        solve(WorkerSession("nowhere:Nothing"))
