"""What a first use compiles is compiled before the clock starts, once a worker, and a Ctrl-C loses none of it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from bridges import EngineError, OdeProblem, UnknownMethodError, get_engine
from bridges.julia.engine import using_backend
from bridges.julia.session import WorkerSession
from bridges.julia.warming import SmallJob, kind_of
from tests.bridges.equations import METHODS, Y0, decay, engine_called, fixed_step, parametrised
from tests.bridges.jobs import STAND_IN, job, patient_session, solve
from tests.bridges.stand_in import StandIn
from tests.bridges.test_sigint import ctrl_c_after, ctrl_c_at_every_line

PROGRESS = "bridges.progress"


@pytest.fixture
def session() -> Iterator[WorkerSession]:
    made = patient_session()
    yield made
    made.close()


def kinds() -> Iterator[dict]:
    for changes in (
        {},
        {"atol": None},
        {"step": 0.1},
        {"max_step": 0.1},
        {"kind": "implicit", "jvp": True},
        {"kind": "stabilised", "sharpness": True},
    ):
        yield {"do": "solve", **job(**changes)}
    for order in (1, 2):
        for step in (None, 0.1):
            yield {"do": "laws", "method": "Vern7", "order": order, "rtol": 1e-9, "atol": 1e-9, "step": step}
    for diagonal in (True, False):
        yield {"do": "noisy", "method": "EM", "time": 2.0, "step": 0.1, "seeds": [7], "diagonal": diagonal}


@pytest.mark.parametrize("asked", [*kinds()], ids=str)
def test_a_small_job_is_of_the_same_kind_and_is_done(asked: dict) -> None:
    """By a backend that does everything: there is nobody to ask but the small job itself."""
    small = SmallJob(asked)
    assert kind_of(small.job) == kind_of(asked)
    backend = StandIn()
    if asked["do"] == "laws":
        result = backend.laws(small.job, small.arrays, small.ask)
        assert np.ptp(result["arrays"]["charges"]) > 0.1  # at rest, little of a method would be used
    elif asked["do"] == "noisy":
        result = backend.noisy(small.job, small.rows, small.arrays, small.ask)
    else:
        result = backend.solve(small.job, small.rows, small.ask)
        np.testing.assert_allclose(small.rows[0], np.exp(-1), atol=1e-2)
    assert result["retcode"] == "Success"


def test_kinds_differ_where_the_code_does() -> None:
    found = [kind_of(asked) for asked in kinds()]
    assert len(set(found)) == len(found) - 2  # the order of a law is a number
    for asked, kind in zip(kinds(), found, strict=True):
        others = {"rtol": 1e-4, "times": [0.0, 2.0], "time": 9.0, "max_steps": 5}
        assert kind_of({**asked, **{name: others[name] for name in asked.keys() & others}}) == kind


def test_a_method_is_compiled_once_a_worker(session: WorkerSession, caplog) -> None:
    caplog.set_level(logging.INFO, PROGRESS)

    def compiled() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == PROGRESS]
        caplog.clear()
        return [line for line in found if "compiling" in line]

    first = {"do": "solve", **job("Vern9")}
    session.warm(first)
    assert ["Vern9" in line for line in compiled()] == [True]
    session.warm({**first, "rtol": 1e-3, "times": [0.0, 5.0]})
    assert compiled() == []
    session.warm({**first, "step": 0.1})
    assert len(compiled()) == 1
    session.close()
    session.warm(first)  # another worker
    assert len(compiled()) == 1


def test_a_ctrl_c_leaves_the_worker_compiling_and_nothing_is_lost(
    session: WorkerSession, tmp_path, python_sigint
) -> None:
    done = tmp_path / "done"
    slow = {"do": "solve", **job(f"compiles until {done}")}
    solve(session)
    worker = session.pid
    # The second and the third wait for the same compilation.
    for act in (lambda: session.warm(slow), lambda: session.warm(slow), lambda: solve(session)):
        with ctrl_c_after(0.2) as start:
            start()
            with pytest.raises(KeyboardInterrupt):
                act()
        assert session.pid == worker
    threading.Timer(0.2, done.touch).start()
    samples, _ = solve(session, y0=(3.0, 5.0))
    np.testing.assert_allclose(samples[-1], np.exp(-1) * np.array([3, 5]), rtol=1e-9)
    assert session.pid == worker
    session.warm(slow)  # it is compiled


def test_a_worker_that_dies_in_a_compilation_that_was_interrupted_costs_the_next_job_nothing(
    session: WorkerSession, tmp_path, python_sigint
) -> None:
    solve(session)
    with ctrl_c_after(0.2) as start:
        start()
        with pytest.raises(KeyboardInterrupt):
            session.warm({"do": "solve", **job(f"compiles until {tmp_path / 'never'}")})
    os.kill(session.pid, signal.SIGKILL)
    samples, _ = solve(session, y0=(3.0, 5.0))
    np.testing.assert_allclose(samples[-1], np.exp(-1) * np.array([3, 5]), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("python_sigint")
def test_ctrl_c_at_every_line_of_a_warm_up(session: WorkerSession) -> None:
    names = (f"method {i}" for i in range(10**6))

    def warm_up() -> None:
        session.warm({"do": "solve", **job(next(names))})

    def check(where: str) -> None:
        samples, _ = solve(session, y0=(3.0, 5.0), method="RK4", step=1.0)
        np.testing.assert_allclose(samples[-1], 0.375 * np.array([3, 5]), err_msg=where)

    solve(session)
    assert ctrl_c_at_every_line(warm_up, check) > 40


def test_a_worker_that_dies_while_it_compiles_is_told(session: WorkerSession) -> None:
    with using_backend(STAND_IN):
        engine = get_engine("diffeq")
        problem = OdeProblem(decay, Y0, np.array([0.0, 1.0]))
        engine.methods = {**engine.methods, "dies in the middle": engine.methods["Vern9"]}
        solution = engine.solve(problem, "dies in the middle", lambda index, t, y: None)
        assert solution.status == "step_failure"
        assert "ended with status 3" in solution.message
        assert solution.statistics.rhs_evaluations == 0
        assert engine.solve(problem, "Vern9", lambda index, t, y: None).status == "success"


def test_what_fails_while_compiling_fails_in_the_job_itself() -> None:
    with using_backend(STAND_IN):
        engine = get_engine("diffeq")
        engine.methods = {**engine.methods, "raises": engine.methods["Vern9"]}
        engine.warm("raises")
        solution = engine.solve(
            OdeProblem(decay, Y0, np.array([0.0, 1.0])), "raises", lambda index, t, y: None
        )
    assert solution.status == "step_failure"
    assert "this method is broken" in solution.message


@parametrised([pair for pair in METHODS if pair[0] in ("stand-in", "diffeq", "scipy")])
def test_a_warm_up_changes_no_result(engine: str, method: str) -> None:
    solver = engine_called(engine)
    ends = []
    problem = OdeProblem(decay, Y0, np.array([0.0, 1.0]), step=fixed_step(engine, method))
    for _ in range(2):
        solver.warm(method)
        solver.solve(problem, method, lambda index, t, y: ends.append(y.copy()))
    np.testing.assert_array_equal(ends[1], ends[3])


def test_an_unknown_method_is_named() -> None:
    with using_backend(STAND_IN), pytest.raises(UnknownMethodError, match="did you mean 'Vern"):
        get_engine("diffeq").warm("Vern11")
    with using_backend("nowhere:Nothing"), pytest.raises(EngineError, match=r"engine 'diffeq': .*nowhere"):
        get_engine("diffeq").warm("Vern9")


def test_compilation_is_no_time_of_the_solve(tmp_path) -> None:
    done = tmp_path / "done"
    method = f"compiles until {done}"
    with using_backend(STAND_IN):
        engine = get_engine("diffeq")
        engine.methods = {**engine.methods, method: engine.methods["Vern9"]}
        threading.Timer(1.0, done.touch).start()
        problem, before = OdeProblem(decay, Y0, np.array([0.0, 1.0]), max_seconds=60.0), time.monotonic()
        solution = engine.solve(problem, method, lambda index, t, y: None)
        took = time.monotonic() - before
    assert solution.status == "success"
    assert took > 1.0
    assert solution.statistics.wall_seconds <= took - 0.9
