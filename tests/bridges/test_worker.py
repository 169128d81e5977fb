"""The worker and the line to it, with SciPy standing in for Julia: every failure is provoked for real."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bridges import EngineError, OdeProblem
from bridges.julia.caller import Callbacks, Worker, WorkerError
from bridges.julia.engine import DiffeqEngine, shared_worker
from bridges.julia.protocol import Vectors

STAND_IN = "tests.bridges.stand_in:StandIn"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def worker():
    made = Worker(STAND_IN)
    yield made
    made.close()


def job(method: str = "Vern9", times=(0.0, 1.0), **changes):
    return {
        "method": method,
        "kind": "explicit",
        "times": list(times),
        "rtol": 1e-10,
        "atol": 1e-12,
        "step": None,
        "max_step": None,
        "jvp": False,
        "sharpness": False,
        "max_steps": 10**6,
        **changes,
    }


def decay(t, y, dy) -> None:
    dy[:] = -y


def solve(worker: Worker, rhs=decay, y0=(1.0, 2.0), on_sample=None, **changes):
    samples: list[np.ndarray] = []

    def keep(index: int, state: np.ndarray) -> None:
        samples.append(state.copy())
        if on_sample is not None:
            on_sample(index, state)

    ending = worker.solve(job(**changes), np.asarray(y0, float), None, Callbacks(rhs, keep))
    return np.array(samples), ending


def test_a_solve_and_its_samples(worker: Worker) -> None:
    samples, ending = solve(worker, times=(0.0, 0.5, 1.0))
    np.testing.assert_allclose(samples, np.outer(np.exp([0, -0.5, -1]), [1, 2]), rtol=1e-9)
    assert ending["retcode"] == "Success"


def test_ten_solves_take_one_worker(worker: Worker) -> None:
    solve(worker)
    first = worker.pid
    for n in (1, 2, 7, 7, 1000, 3, 3, 2, 50_000, 1):
        samples, _ = solve(worker, y0=np.linspace(1, 2, n))
        np.testing.assert_allclose(samples[-1], np.exp(-1) * np.linspace(1, 2, n), rtol=1e-9)
    assert worker.pid == first


def test_a_state_of_ten_million(worker: Worker) -> None:
    n = 10_000_000
    seen = []

    def rhs(t, y, dy) -> None:
        np.negative(y, out=dy)

    y0 = np.arange(n, dtype=float)
    worker.solve(
        job("RK4", step=1.0), y0, None, Callbacks(rhs, lambda i, y: seen.append((y[0], y[1], y[n - 1])))
    )
    np.testing.assert_allclose(
        np.array(seen[-1]) / [1, 1, n - 1], [0, 0.375, 0.375]
    )  # RK4's e^−1 in one step
    assert len(seen) == 2


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("where", ["rhs", "sample"])
def test_an_exception_comes_back_as_itself_and_the_worker_stays(worker: Worker, where: str) -> None:
    mine = BrokenError("mine")

    def fail(*_: object) -> None:
        raise mine

    solve(worker)
    before = worker.pid
    with pytest.raises(BrokenError) as caught:
        solve(worker, **({"rhs": fail} if where == "rhs" else {"on_sample": fail}))
    assert caught.value is mine
    solve(worker)
    assert worker.pid == before


def test_what_the_solver_raises_is_told_without_its_stack(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"^ValueError: this method is broken$"):
        solve(worker, method="raises")
    solve(worker)


@pytest.mark.parametrize(("method", "status"), [("dies in the middle", 3), ("dies at a sample", 4)])
def test_a_worker_that_dies_is_told_and_replaced(worker: Worker, method: str, status: int) -> None:
    with pytest.raises(WorkerError, match=rf"ended with status {status}.*the next solve starts a new one"):
        solve(worker, method=method, times=(0.0, 0.7, 1.0))
    samples, _ = solve(worker)
    np.testing.assert_allclose(samples[-1], np.exp(-1) * np.array([1, 2]), rtol=1e-9)


@pytest.mark.parametrize("where", ["rhs", "sample"])
def test_kill_9_in_the_middle(worker: Worker, where: str) -> None:
    def kill(*_: object) -> None:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)

    def rhs(t, y, dy) -> None:
        decay(t, y, dy)
        if where == "rhs" and t > 0.5:
            kill()

    with pytest.raises(WorkerError, match="ended with status -9"):
        solve(worker, rhs, on_sample=(lambda i, y: kill()) if where == "sample" else None)
    solve(worker)


def test_nothing_is_left_behind_by_a_killed_worker(worker: Worker) -> None:
    solve(worker)
    life = worker._life
    assert life is not None
    assert life.vectors is not None
    assert not life.vectors.path.exists()  # its name is gone as soon as both have it open


def test_ctrl_c_comes_back_and_the_worker_stays(worker: Worker) -> None:
    solve(worker)
    before = worker.pid

    def rhs(t, y, dy) -> None:
        decay(t, y, dy)
        if t > 0.3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        solve(worker, rhs)
    solve(worker)
    assert worker.pid == before


def test_ctrl_c_while_the_worker_computes_ends_it(worker: Worker, monkeypatch) -> None:
    monkeypatch.setattr("bridges.julia.caller._PATIENCE", 0.3)
    solve(worker)
    before = worker.pid
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        solve(worker, method="computes for ever")
    solve(worker)
    assert worker.pid != before


def test_two_threads_wait_for_each_other(worker: Worker) -> None:
    """Each sees its own states, whatever the sizes: nothing is mixed."""
    found: dict[int, np.ndarray] = {}

    def work(rate: int) -> None:
        def rhs(t, y, dy) -> None:
            dy[:] = -rate * y
            time.sleep(0.0005)

        found[rate] = solve(worker, rhs, y0=np.full(rate, float(rate)))[0][-1]

    threads = [threading.Thread(target=work, args=(rate,)) for rate in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rate, last in found.items():
        np.testing.assert_allclose(last, rate * np.exp(-rate) * np.ones(rate), rtol=1e-8)
    assert len(found) == 4


def test_a_solve_inside_a_right_hand_side_is_refused(worker: Worker) -> None:
    def rhs(t, y, dy) -> None:
        solve(worker)

    with pytest.raises(EngineError, match="inside the right-hand side of another"):
        solve(worker, rhs)
    solve(worker)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_a_worker_of_its_own(worker: Worker) -> None:
    solve(worker)
    code = (
        "import os, sys\n"
        "from tests.bridges.test_worker import STAND_IN, solve\n"
        "from bridges.julia.caller import Worker\n"
        "w = Worker(STAND_IN); solve(w); mine = w.pid\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    solve(w); os._exit(0 if w.pid != mine else 1)\n"
        "_, status = os.waitpid(child, 0)\n"
        "solve(w)\n"
        "sys.exit(os.waitstatus_to_exitcode(status) or w.pid != mine)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def solve_somewhere(n: int) -> tuple[int, int, float]:
    worker = shared_worker(STAND_IN)
    samples, _ = solve(worker, y0=np.ones(n))
    return os.getpid(), worker.pid or 0, float(samples[-1][0])


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
        "from tests.bridges.test_worker import STAND_IN, decay, solve\n"
        "from bridges.julia.caller import Worker\n"
        "w = Worker(STAND_IN); solve(w)\n"
        "slow = lambda t, y, dy: (time.sleep(0.02), decay(t, y, dy))\n"
        "thread = threading.Thread(target=solve, args=(w, slow)); thread.start(); time.sleep(0.1)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    solve(w); os._exit(0)\n"
        "_, status = os.waitpid(child, 0)\n"
        "thread.join()\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("seed", range(12))
def test_ctrl_c_at_any_moment_leaves_a_line_that_works(worker: Worker, seed: int) -> None:
    """Whether the worker stays or is replaced: the next solve gets its own answers."""
    solve(worker)
    delay = np.random.default_rng(seed).uniform(0.0, 0.05)
    timer = threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()

    def on_and_on() -> None:
        for n in range(1, 10_000):
            solve(worker, y0=np.ones(1 + n % 3))

    with pytest.raises(KeyboardInterrupt):
        on_and_on()
    timer.join()
    samples, _ = solve(worker, y0=(3.0, 5.0))
    np.testing.assert_allclose(samples[-1], np.exp(-1) * np.array([3, 5]), rtol=1e-9)


def test_ctrl_c_while_the_worker_starts() -> None:
    """No process is left, and the next solve starts another."""
    made = Worker(STAND_IN)
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        solve(made)
    timer.join()
    assert made.pid is None
    solve(made)
    made.close()


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
        "import threading; threading.Timer(0.5, lambda: os.kill(os.getpid(), 9)).start();"
        "solve(w, method='computes for ever')"
    ),
}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_does_not_outlive_its_parent(ending: str) -> None:
    code = (
        "import os\n"
        "from tests.bridges.test_worker import STAND_IN, solve\n"
        "from bridges.julia.caller import Worker\n"
        "w = Worker(STAND_IN); solve(w)\n"
        "print(w.pid, flush=True)\n" + ENDINGS[ending]
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True, text=True)
    pid = int(done.stdout.split()[0])
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_what_the_worker_prints_is_in_the_log(caplog) -> None:
    made = Worker(STAND_IN)
    with caplog.at_level(logging.INFO, logger="bridges.julia"):
        solve(made)
        made.close()
        time.sleep(0.2)
    assert "a line on standard output" in caplog.text


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("NM_ODE_STAND_IN_FAILS", "could not start: RuntimeError: nothing to stand in for"),
        ("NM_ODE_STAND_IN_DIES", "could not start: it ended with status 7; its last words: .*falling over"),
    ],
)
def test_a_worker_that_cannot_start_says_why(variable: str, sentence: str) -> None:
    made = Worker(STAND_IN, environment=lambda: {**os.environ, variable: "1"})
    with pytest.raises(WorkerError, match=sentence):
        solve(made)


def test_a_worker_that_is_not_there() -> None:
    with pytest.raises(WorkerError, match=r"could not start: ModuleNotFoundError: No module named 'nowhere'"):
        solve(Worker("nowhere:Nothing"))


def test_shared_vectors_need_room(monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(EngineError, match=r"no room for 24 MB that the state shares .* set TMPDIR"):
        Vectors.create(1_000_000)


def test_a_law_without_callbacks(worker: Worker) -> None:
    """Q̇ = −κQ + F_k with F jumping: closed form step by step."""
    kappa, times = np.array([0.5, 2.0]), np.array([0.0, 0.4, 1.0, 1.1])
    force = np.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 1.0]])
    arrays = {"kappa": kappa, "force": force, "y0": np.array([1.0, -1.0]), "times": times}
    arrays |= {"m": np.ones_like(force), "b": np.ones_like(force)}
    ending = worker.laws({"method": "Vern9", "order": 1, "rtol": 1e-11, "atol": 1e-13}, arrays)
    exact = [arrays["y0"]]
    for k, h in enumerate(np.diff(times)):
        rest = force[k] / kappa
        exact.append(rest + np.exp(-kappa * h) * (exact[-1] - rest))
    np.testing.assert_allclose(ending["arrays"]["charges"], exact, rtol=1e-9)


def engine_solve(method: str, **options):
    samples: list[np.ndarray] = []
    problem = OdeProblem(decay, np.array([1.0, 2.0]), np.array([0.0, 1.0]), rtol=1e-9, atol=1e-12, **options)
    solution = DiffeqEngine(STAND_IN).solve(problem, method, lambda i, t, y: samples.append(y.copy()))
    return np.array(samples), solution


def test_implicit_methods_take_the_callers_jacobian_product() -> None:
    calls = []

    def jvp(t, y, v, out) -> None:
        calls.append(t)
        out[:] = -v

    _, solution = engine_solve("FBDF", jvp=jvp)
    assert solution.status == "success"
    assert calls
    calls.clear()
    engine_solve("Vern7", jvp=jvp)  # an explicit method has no use for it
    assert not calls


def test_stabilised_methods_take_the_callers_sharpness() -> None:
    calls = []
    _, solution = engine_solve("ROCK4", sharpness=lambda t, y: calls.append(t) or 1.0)
    assert solution.status == "success"
    assert calls


def test_one_worker_serves_all_engines_of_a_process() -> None:
    engine_solve("Tsit5")
    first = shared_worker(STAND_IN).pid
    engine_solve("Vern9")
    assert shared_worker(STAND_IN).pid == first


def test_each_of_the_rules_learnt_on_the_real_thing_is_named_where_it_applies() -> None:
    """BRIDGE.md has eleven."""
    import re

    folder = ROOT / "bridges/julia"
    text = " ".join(path.read_text() for path in folder.iterdir() if path.suffix in (".py", ".jl"))
    named = {int(n) for n in re.findall(r"[Rr]ule (\d+)", text)}
    assert named == set(range(1, 12))
