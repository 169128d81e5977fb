"""A result that is lost on its way: with its scheduler, or alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from nm_ode.batch.on_workers import on_workers
from nm_ode.batch.standing import Standing
from nm_ode.batch.tasks import BatchError, MemberOutcome, MemberTask

TASKS = [MemberTask("study", f"seed={i}", {}, "case.toml", "out", None, "batch", 1) for i in range(3)]


class Result:
    """A future that is finished, whose result may not come."""

    status = "finished"

    def __init__(self, key: str, task: MemberTask, error: Exception | None) -> None:
        self.key, self._task, self._error = key, task, error

    def add_done_callback(self, call: Callable[[Result], None]) -> None:
        call(self)

    def result(self, timeout: float) -> MemberOutcome:
        if self._error is not None:
            raise self._error
        return MemberOutcome.of(self._task, "done", seconds=1.0)

    def release(self) -> None:
        pass


class Connection:
    """A client whose first results are lost; the scheduler may be lost with them, unnoticed."""

    status = "running"

    def __init__(self, losses: list[Exception], *, gone: bool) -> None:
        self._losses, self._gone, self._asked = losses, gone, 0

    def nthreads(self) -> dict[str, int]:
        self._asked += 1
        if self._gone and self._asked > 1:
            raise OSError("Connection reset by peer")
        return {"worker": 1}

    def submit(self, function: Any, task: MemberTask, *, key: str, **options: Any) -> Result:
        return Result(key, task, self._losses.pop(0) if self._losses else None)

    def run(self, *given: Any, **options: Any) -> None:
        pass

    def cancel(self, *given: Any, **options: Any) -> None:
        pass


LOSSES = [
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(),
    CancelledError("study-1"),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_scheduler_that_goes_while_it_answers_ends_the_batch_with_a_sentence(loss: Exception) -> None:
    client: Any = Connection([loss], gone=True)
    with pytest.raises(BatchError, match=r"connection to the scheduler is lost.*the same command"):
        list(on_workers(client, TASKS, Standing(total=3), lambda standing: None, alone=False))


def test_results_that_are_lost_alone_are_asked_for_again() -> None:
    client: Any = Connection(list(LOSSES), gone=False)
    standing = Standing(total=3)
    outcomes = list(on_workers(client, TASKS, standing, lambda standing: None, alone=False))
    assert sorted(outcome.member for outcome in outcomes) == [task.member for task in TASKS]
    assert standing.over == 3
