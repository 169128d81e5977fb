"""Jobs and failures of the worker, with SciPy in Julia's place: every failure is provoked for real."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import numpy as np
import pytest

from bridges import EngineError, OdeProblem
from bridges.julia.conversation import Callbacks
from bridges.julia.engine import DiffeqEngine, shared_session
from bridges.julia.process import WorkerError
from bridges.julia.protocol import Vectors
from bridges.julia.session import WorkerSession
from tests.bridges.jobs import ROOT, STAND_IN, decay, job, patient_session, solve


@pytest.fixture(scope="module")
def session():
    made = patient_session()
    yield made
    made.close()


def test_a_solve_and_its_samples(session: WorkerSession) -> None:
    samples, ending = solve(session, times=(0.0, 0.5, 1.0))
    np.testing.assert_allclose(samples, np.outer(np.exp([0, -0.5, -1]), [1, 2]), rtol=1e-9)
    assert ending["retcode"] == "Success"


def test_ten_solves_take_one_worker(session: WorkerSession) -> None:
    solve(session)
    first = session.pid
    for n in (1, 2, 7, 7, 1000, 3, 3, 2, 50_000, 1):
        samples, _ = solve(session, y0=np.linspace(1, 2, n))
        np.testing.assert_allclose(samples[-1], np.exp(-1) * np.linspace(1, 2, n), rtol=1e-9)
    assert session.pid == first


def test_a_state_of_ten_million(session: WorkerSession) -> None:
    n = 10_000_000
    seen = []

    def rhs(t, y, dy) -> None:
        np.negative(y, out=dy)

    y0 = np.arange(n, dtype=float)
    session.solve(
        job("RK4", step=1.0), y0, None, Callbacks(rhs, lambda i, y: seen.append((y[0], y[1], y[n - 1])))
    )
    np.testing.assert_allclose(
        np.array(seen[-1]) / [1, 1, n - 1], [0, 0.375, 0.375]
    )  # RK4's e^−1 in one step
    assert len(seen) == 2


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("where", ["rhs", "sample"])
def test_an_exception_comes_back_as_itself_and_the_worker_stays(session: WorkerSession, where: str) -> None:
    mine = BrokenError("mine")

    def fail(*_: object) -> None:
        raise mine

    solve(session)
    before = session.pid
    with pytest.raises(BrokenError) as caught:
        solve(session, **({"rhs": fail} if where == "rhs" else {"on_sample": fail}))
    assert caught.value is mine
    solve(session)
    assert session.pid == before


def test_what_the_solver_raises_is_told_without_its_stack(session: WorkerSession) -> None:
    with pytest.raises(WorkerError, match=r"^ValueError: this method is broken$"):
        solve(session, method="raises")
    solve(session)


@pytest.mark.parametrize(("method", "status"), [("dies in the middle", 3), ("dies at a sample", 4)])
def test_a_worker_that_dies_is_told_and_replaced(session: WorkerSession, method: str, status: int) -> None:
    with pytest.raises(WorkerError, match=rf"ended with status {status}.*the next solve starts a new one"):
        solve(session, method=method, times=(0.0, 0.7, 1.0))
    samples, _ = solve(session)
    np.testing.assert_allclose(samples[-1], np.exp(-1) * np.array([1, 2]), rtol=1e-9)


@pytest.mark.parametrize("where", ["rhs", "sample"])
def test_kill_9_in_the_middle(session: WorkerSession, where: str) -> None:
    def kill(*_: object) -> None:
        assert session.pid is not None
        os.kill(session.pid, signal.SIGKILL)

    def rhs(t, y, dy) -> None:
        decay(t, y, dy)
        if where == "rhs" and t > 0.5:
            kill()

    with pytest.raises(WorkerError, match="ended with status -9"):
        solve(session, rhs, on_sample=(lambda i, y: kill()) if where == "sample" else None)
    solve(session)


def test_two_threads_wait_for_each_other(session: WorkerSession) -> None:
    """Each sees its own states, whatever the sizes: nothing is mixed."""
    found: dict[int, np.ndarray] = {}

    def work(rate: int) -> None:
        def rhs(t, y, dy) -> None:
            dy[:] = -rate * y
            time.sleep(0.0005)

        found[rate] = solve(session, rhs, y0=np.full(rate, float(rate)))[0][-1]

    threads = [threading.Thread(target=work, args=(rate,)) for rate in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rate, last in found.items():
        np.testing.assert_allclose(last, rate * np.exp(-rate) * np.ones(rate), rtol=1e-8)
    assert len(found) == 4


def test_a_solve_inside_a_right_hand_side_is_refused(session: WorkerSession) -> None:
    def rhs(t, y, dy) -> None:
        solve(session)

    with pytest.raises(EngineError, match="inside the right-hand side of another"):
        solve(session, rhs)
    solve(session)


def test_shared_vectors_need_room(monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(EngineError, match=r"no room for 24 MB that the state shares .* set TMPDIR"):
        Vectors.create(1_000_000)


def test_a_law_without_callbacks(session: WorkerSession) -> None:
    """Q̇ = −κQ + F_k with F jumping: closed form step by step."""
    kappa, times = np.array([0.5, 2.0]), np.array([0.0, 0.4, 1.0, 1.1])
    force = np.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 1.0]])
    arrays = {"kappa": kappa, "force": force, "y0": np.array([1.0, -1.0]), "times": times}
    arrays |= {"m": np.ones_like(force), "b": np.ones_like(force)}
    asked = {"method": "Vern9", "order": 1, "rtol": 1e-11, "atol": 1e-13, "step": None}
    ending = session.laws(asked, arrays)
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
    _, solution = engine_solve("ROCK4", sharpness=lambda t, y, rhs: calls.append(t) or 1.0)
    assert solution.status == "success"
    assert calls


def test_one_worker_serves_all_engines_of_a_process() -> None:
    engine_solve("Tsit5")
    first = shared_session(STAND_IN).pid
    engine_solve("Vern9")
    assert shared_session(STAND_IN).pid == first


def test_each_of_the_rules_learnt_on_the_real_thing_is_named_where_it_applies() -> None:
    """docs/bridge.md has those that concern the code, by their numbers."""
    folder = ROOT / "bridges/julia"
    text = " ".join(path.read_text() for path in folder.iterdir() if path.suffix in (".py", ".jl"))
    named = {int(n) for n in re.findall(r"[Rr]ule (\d+)", text)}
    assert named == set(range(1, 17))
