"""Members one after the other, in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from nm_ode.batch.member import run_member
from nm_ode.batch.pages import with_page
from nm_ode.batch.standing import Standing, Told
from nm_ode.batch.tasks import MemberOutcome, MemberTask
from nm_ode.batch.waiting import Waiting


def in_process(tasks: Sequence[MemberTask], standing: Standing, told: Told) -> Iterator[MemberOutcome]:
    """Run the tasks; their outcomes as they come."""
    waiting = Waiting(tasks)
    while len(waiting):
        task = waiting.take(time.monotonic())
        standing.running, standing.busy = int(task is not None), waiting.busy
        told(standing)
        if task is None:
            time.sleep(waiting.until(time.monotonic()))
            continue
        outcome = with_page(task, run_member(task))
        standing.running = 0
        if outcome.status == "busy":
            waiting.put_off(task, time.monotonic())
            continue
        standing.take(outcome)
        told(standing)
        yield outcome
        if outcome.ends_batch:
            return
