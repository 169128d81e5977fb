"""What a batch is made of: the watch, the waiting tasks, attempts, surroundings, a case's text."""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import time
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nm_ode.batch.attempts import Attempts
from nm_ode.batch.cluster import local_client
from nm_ode.batch.machine import workers_for
from nm_ode.batch.said import end_of, said_to
from nm_ode.batch.standing import Standing
from nm_ode.batch.surroundings import same_surroundings
from nm_ode.batch.tasks import ALLOWED, MemberOutcome, MemberTask
from nm_ode.batch.waiting import Waiting
from nm_ode.batch.watch import Cancelled, TimeUp, TooLarge, Watch, give_up
from nm_ode.studies import shipped_cases
from nm_ode.studies.written import as_toml, with_code_found

TASKS = [MemberTask("study", f"seed={i}", {}, "case.toml", "out", None, "batch", 1) for i in range(3)]


def busy() -> None:
    """Work that answers no question."""
    while True:
        pass


@pytest.mark.parametrize(
    ("limits", "error"),
    [({"max_seconds": 0.0}, TimeUp), ({"memory": 1}, TooLarge)],
)
def test_work_that_does_not_answer_is_ended(limits, error, monkeypatch) -> None:
    monkeypatch.setattr("nm_ode.batch.watch._ANSWER", 0.05)
    with pytest.raises(error), Watch("batch", **limits):
        busy()


def test_a_batch_that_is_given_up_ends_between_two_steps() -> None:
    steps = []

    def work() -> None:
        with Watch("another") as watch:
            report = watch.progress("training", 100)
            give_up("another")
            while True:
                report(len(steps))
                steps.append(1)
                time.sleep(0.01)

    with pytest.raises(Cancelled):
        work()
    assert steps


def test_work_that_is_over_in_time_is_left_alone() -> None:
    for _ in range(20):
        with Watch("batch", max_seconds=60.0, memory=2**60) as watch:
            watch.heed()
    busy_for = time.monotonic() + 0.5  # nothing comes later
    while time.monotonic() < busy_for:
        pass


def test_a_busy_member_is_tried_again_ever_later_and_keeps_nobody_waiting() -> None:
    waiting = Waiting(TASKS)
    first = waiting.take(0.0)
    assert first is TASKS[0]
    waiting.put_off(first, 0.0)
    assert [waiting.take(0.0), waiting.take(0.0), waiting.take(0.0)] == [TASKS[1], TASKS[2], None]
    assert waiting.busy == 1
    pauses = []
    now = 0.0
    for _ in range(8):
        pauses.append(waiting.until(now))
        now += pauses[-1]
        assert waiting.take(now) is first
        waiting.put_off(first, now)
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 10.0


def test_the_time_left_is_by_what_was_computed() -> None:
    standing = Standing(total=10, whole=2, workers=2)
    assert standing.seconds_left is None
    for seconds in (3.0, 5.0):
        standing.take(MemberOutcome("study", "a", "done", seconds=seconds))
    standing.take(MemberOutcome("study", "b", "failed", "why", seconds=99.0))
    assert standing.over == 5
    assert standing.seconds_left == pytest.approx(5 * 4.0 / 2)


def test_deaths_are_counted_in_one_batch(tmp_path: Path) -> None:
    for i in range(ALLOWED):
        attempts = Attempts.of(tmp_path, "batch")
        assert attempts.deaths == i
        attempts.begin(1000)
        attempts.grown(900 if i == ALLOWED - 1 else 100)
    last = Attempts.of(tmp_path, "batch")
    assert last.deaths == ALLOWED
    assert last.of_memory
    assert "900 bytes of the 1000 bytes" in last.sentence()
    assert Attempts.of(tmp_path, "the next").deaths == 0
    last.end()
    assert Attempts.of(tmp_path, "batch").deaths == 0


def test_surroundings_are_the_same_and_left_as_they_were() -> None:
    def drawn() -> list[float]:
        return [torch.rand(()).item(), np.random.rand(), random.random()]  # noqa: NPY002

    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    seen = []
    for _ in range(2):
        with same_surroundings(7, 1):
            seen.append(drawn())
            torch.set_default_dtype(torch.float64)
        drawn()
    assert seen[0] == seen[1]
    assert torch.get_default_dtype() == torch.float32
    torch.set_rng_state(before[0])
    with same_surroundings(7, 1):
        drawn()
    assert torch.equal(torch.get_rng_state(), before[0])


def test_what_is_said_is_kept_to_its_end(tmp_path: Path, capsys) -> None:
    log = tmp_path / "log.txt"
    assert end_of(log) == ""
    with said_to(log, whole_process=False):
        print("begins")
        print("long " * 20_000)
        print("odd", file=sys.stderr)
    print("outside")
    assert capsys.readouterr().out == "outside\n"
    kept = end_of(log)
    assert kept.startswith("[… ")
    assert kept.endswith("odd\n")


def test_workers_are_as_many_as_there_is_work() -> None:
    assert workers_for(1, ["cpu"]).count == 0
    many = workers_for(1000, ["cpu"])
    assert many.count in (0, *range(2, 1000))
    assert many.threads == 1 or many.count == 0
    assert workers_for(1000, ["cpu"], wanted=3).count == 3
    assert workers_for(1000, ["cpu"], wanted=3).memory * 3 <= workers_for(1, ["cpu"]).memory
    assert workers_for(2, ["cpu"], wanted=0, threads=5).threads == 5


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_a_case_is_read_as_it_was_written(raw) -> None:
    assert tomllib.loads(as_toml(raw)) == raw


def test_shipped_cases_are_read_as_they_were_written() -> None:
    for path in shipped_cases():
        raw = tomllib.loads(path.read_text())
        assert tomllib.loads(as_toml(raw)) == raw


def test_code_is_found_from_anywhere(tmp_path: Path) -> None:
    raw = {"model": {"python": "own.py:build", "widths": [1]}, "data": {"path": "samples.npz", "name": "npz"}}
    (tmp_path / "samples.npz").touch()
    found = with_code_found(raw, tmp_path)
    assert found["model"] == {"python": f"{(tmp_path / 'own.py').as_posix()}:build", "widths": [1]}
    assert found["data"] == {"path": (tmp_path / "samples.npz").as_posix(), "name": "npz"}


def test_a_cluster_beside_another_says_nothing_of_its_ports() -> None:
    with socket.socket() as other, warnings.catch_warnings(record=True) as said:
        with contextlib.suppress(OSError):  # somebody else has it already
            other.bind(("", 8787))
            other.listen()
        with local_client(0, 1, None):
            pass
    assert not [str(warning.message) for warning in said if "Port" in str(warning.message)]
