"""Ctrl-C, wherever it comes: raised, or left to a caller that ignores it; no job gets the answers to another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from bridges import EngineError
from bridges.julia import conversation, signals
from bridges.julia import session as session_module
from bridges.julia.session import WorkerSession
from bridges.julia.signals import DeferSigint
from tests.bridges.jobs import ROOT, STAND_IN, decay, patient_session, solve

pytestmark = pytest.mark.usefixtures("python_sigint")


@pytest.fixture(scope="module")
def session() -> Iterator[WorkerSession]:
    made = patient_session()
    yield made
    made.close()


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def ctrl_c_after(*delays: float) -> Iterator[Callable[[], None]]:
    """Gives what starts the clock; at the end of the block none is left to come."""
    timers = [threading.Timer(delay, ctrl_c) for delay in delays]

    def start() -> None:
        for timer in timers:
            timer.start()

    try:
        yield start
    finally:
        for timer in timers:
            timer.cancel()
            if timer.ident is not None:
                timer.join()


@contextmanager
def ctrl_c_again_and_again() -> Iterator[None]:
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.1):
            ctrl_c()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def assert_right_answers(session: WorkerSession) -> None:
    samples, _ = solve(session, y0=(3.0, 5.0))
    np.testing.assert_allclose(samples[-1], np.exp(-1) * np.array([3, 5]), rtol=1e-9)


def test_ctrl_c_in_a_callback_comes_back_and_the_worker_stays(session: WorkerSession) -> None:
    solve(session)
    before = session.pid

    def rhs(t, y, dy) -> None:
        decay(t, y, dy)
        if t > 0.3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        solve(session, rhs)
    assert_right_answers(session)
    assert session.pid == before


def test_ctrl_c_while_the_worker_computes_ends_it() -> None:
    session = WorkerSession(STAND_IN, give_up_seconds=0.1)
    solve(session)
    before = session.pid
    with ctrl_c_after(0.1) as start, pytest.raises(KeyboardInterrupt):
        solve(session, method="computes for ever", on_sample=lambda *_: start())
    assert_right_answers(session)
    assert session.pid != before
    session.close()


def test_ctrl_c_once_more_ends_a_worker_at_once() -> None:
    session = WorkerSession(STAND_IN, give_up_seconds=3600)
    with ctrl_c_after(0.1, 0.5) as start, pytest.raises(KeyboardInterrupt):
        solve(session, method="computes for ever", on_sample=lambda *_: start())
    assert_right_answers(session)
    session.close()


@pytest.mark.parametrize("patience", [0.1, 3600])
def test_a_worker_that_does_not_give_up_is_killed(patience: float) -> None:
    """After its patience what the callback raised comes out; a Ctrl-C before that is the later of the two."""
    session = WorkerSession(STAND_IN, give_up_seconds=patience)
    with ctrl_c_after(0.5) as start:

        def fail(*_: object) -> None:
            if patience > 1:
                start()
            raise LookupError("mine")

        with pytest.raises(KeyboardInterrupt if patience > 1 else LookupError):
            solve(session, method="does not give up", on_sample=fail)
    assert_right_answers(session)
    session.close()


def test_ctrl_c_while_the_worker_starts() -> None:
    """No process is left, and the next job starts another."""
    environment = {**os.environ, "NM_ODE_STAND_IN_WAITS": "1"}
    made = WorkerSession(STAND_IN, environment=lambda: environment)
    with ctrl_c_after(0.2) as start, pytest.raises(KeyboardInterrupt):
        start() or solve(made)
    assert made.pid is None
    del environment["NM_ODE_STAND_IN_WAITS"]
    assert_right_answers(made)
    made.close()


def test_ctrl_c_while_another_thread_has_the_worker(session: WorkerSession) -> None:
    solve(session)
    begun, go_on = threading.Event(), threading.Event()
    found = []

    def wait(t, y, dy) -> None:
        begun.set()
        go_on.wait()
        decay(t, y, dy)

    thread = threading.Thread(target=lambda: found.append(solve(session, wait)[0]))
    thread.start()
    begun.wait()
    with ctrl_c_after(0.2) as start, pytest.raises(KeyboardInterrupt):
        start() or solve(session)
    go_on.set()
    thread.join()
    np.testing.assert_allclose(found[0][-1], np.exp(-1) * np.array([1, 2]), rtol=1e-9)
    assert_right_answers(session)


@pytest.mark.parametrize("seed", range(6))
def test_ctrl_c_at_any_time(session: WorkerSession, seed: int) -> None:
    """Whether the worker stays or is replaced: the next job gets its own answers."""
    solve(session)
    delay = np.random.default_rng(seed).uniform(0.0, 0.05)

    def on_and_on(start: Callable[[], None]) -> None:
        start()
        for n in range(1, 100_000):
            solve(session, y0=np.ones(1 + n % 3))

    with ctrl_c_after(delay) as start, pytest.raises(KeyboardInterrupt):
        on_and_on(start)
    assert_right_answers(session)


class CtrlCAtLine:
    """A trace function that sends SIGINT at the nth line that is run of a job on the caller's side."""

    FILES = frozenset(module.__file__ for module in (conversation, session_module, signals))

    def __init__(self, nth: int | None) -> None:
        self.lines: list[tuple[str, int]] = []
        self._nth = nth

    def __call__(self, frame, event, _):
        if frame.f_code.co_filename not in self.FILES:
            return None
        if event == "line":
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(self.lines) - 1 == self._nth:
                signal.raise_signal(signal.SIGINT)
        return self

    @contextmanager
    def tracing(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


def ctrl_c_at_every_line(act: Callable[[], None], check: Callable[[str], None]) -> int:
    """At the first run of each line of `act`, and of every second one at the last; `check` is told which.

    Returns: how many lines there are.
    """
    act()
    rehearsal = CtrlCAtLine(None)
    with rehearsal.tracing():
        act()
    first = {line: i for i, line in reversed(list(enumerate(rehearsal.lines)))}
    last = {line: i for i, line in enumerate(rehearsal.lines)}
    for nth in sorted({*first.values(), *list(last.values())[::2]}):
        with pytest.raises(KeyboardInterrupt), CtrlCAtLine(nth).tracing():
            act()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, rehearsal.lines[nth]
        check(str(rehearsal.lines[nth]))
    return len(first)


@pytest.mark.slow
def test_ctrl_c_at_every_line_of_a_job(session: WorkerSession) -> None:
    """No lock is left taken, no handler changed, no worker confused."""

    def short_job() -> None:
        solve(session, method="RK4", step=0.5)

    def check(where: str) -> None:
        samples, _ = solve(session, y0=(3.0, 5.0), method="RK4", step=1.0)
        np.testing.assert_allclose(samples[-1], 0.375 * np.array([3, 5]), err_msg=where)
        solve(session, y0=(1.0, 2.0), method="RK4", step=1.0)

    solve(session)
    assert ctrl_c_at_every_line(short_job, check) > 80


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_caller_that_does_not_handle_sigint_is_left_alone(session: WorkerSession, handler) -> None:
    signal.signal(signal.SIGINT, handler)
    during = []

    def rhs(t, y, dy) -> None:
        during.append(signal.getsignal(signal.SIGINT))
        if handler is signal.SIG_IGN:
            ctrl_c()
        decay(t, y, dy)

    samples, _ = solve(session, rhs)
    np.testing.assert_allclose(samples[-1], np.exp(-1) * np.array([1, 2]), rtol=1e-9)
    assert set(during) == {handler}
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_that_raises_nothing_is_called_for_each_signal(session: WorkerSession) -> None:
    got, sent = [], []

    def note(number, frame) -> None:
        got.append(number)

    def rhs(t, y, dy) -> None:
        ctrl_c()
        sent.append(t)
        decay(t, y, dy)

    signal.signal(signal.SIGINT, note)
    samples, _ = solve(session, rhs)
    np.testing.assert_allclose(samples[-1], np.exp(-1) * np.array([1, 2]), rtol=1e-9)
    assert got == [signal.SIGINT] * len(sent)
    assert signal.getsignal(signal.SIGINT) is note


def test_what_a_handler_of_the_callers_raises_comes_out(session: WorkerSession) -> None:
    class Leave(BaseException):
        pass

    def leave(number, frame) -> None:
        raise Leave

    signal.signal(signal.SIGINT, leave)
    impatient = WorkerSession(STAND_IN, give_up_seconds=0.1)
    with ctrl_c_after(0.1) as start, pytest.raises(Leave):
        solve(impatient, method="computes for ever", on_sample=lambda *_: start())
    assert_right_answers(impatient)
    impatient.close()


def test_a_caller_that_ignores_sigint_starts_solves_and_ends() -> None:
    """As a background job of a shell without job control does; Ctrl-C comes all the time."""
    code = (
        "import signal\n"
        "from tests.bridges.jobs import STAND_IN, solve\n"
        "from tests.bridges.test_sigint import ctrl_c_again_and_again\n"
        "from bridges.julia.session import WorkerSession\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with ctrl_c_again_and_again():\n"
        "    for _ in range(3):\n"
        "        session = WorkerSession(STAND_IN)\n"
        "        print(solve(session)[0][-1][0])\n"
        "        session.close()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    np.testing.assert_allclose([float(line) for line in done.stdout.split()], np.exp(-1), rtol=1e-9)


def test_deferral() -> None:
    seen = []

    def critical() -> None:
        with DeferSigint():
            ctrl_c()
            seen.append("deferred to the end")

    with pytest.raises(KeyboardInterrupt):
        critical()
    with DeferSigint() as sigint:
        ctrl_c()
        seen.append("deferred")
        with pytest.raises(KeyboardInterrupt):
            sigint.check()
        sigint.check()  # handled once
        with pytest.raises(KeyboardInterrupt):
            sigint.allow(ctrl_c)
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            sigint.allow(seen.append, "never")
    assert seen == ["deferred to the end", "deferred"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_deferral_within_deferral_is_handled_at_the_outer_end() -> None:
    seen = []

    def nested() -> None:
        with DeferSigint():
            with DeferSigint():
                ctrl_c()
            seen.append("after the inner one")

    with pytest.raises(KeyboardInterrupt):
        nested()
    assert seen == ["after the inner one"]


def test_a_ctrl_c_is_not_lost_to_another_exception() -> None:
    def failing() -> None:
        with DeferSigint():
            ctrl_c()
            raise LookupError("first")

    with pytest.raises(KeyboardInterrupt) as caught:
        failing()
    assert isinstance(caught.value.__context__, LookupError)


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch) -> None:
    """`getsignal` gives None for one that was installed from C."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("a handler was changed"))
    with DeferSigint() as sigint:
        sigint.check()
        assert sigint.allow(lambda: 3) == 3


def test_other_threads_are_not_concerned() -> None:
    found = []

    def work() -> None:
        with DeferSigint() as sigint:
            found.append(signal.getsignal(signal.SIGINT))
            sigint.check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_a_solve_inside_a_solve_leaves_the_handler(session: WorkerSession) -> None:
    def rhs(t, y, dy) -> None:
        solve(session)

    with pytest.raises(EngineError, match="inside the right-hand side of another"):
        solve(session, rhs)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_right_answers(session)
