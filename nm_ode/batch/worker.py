"""What runs in a Dask worker: little, and without torch, for the members have a process of their own."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, cast

from distributed import get_worker

from nm_ode.batch.child import Died, Ended, members
from nm_ode.batch.machine import SHARE
from nm_ode.batch.tasks import MemberOutcome, MemberTask
from nm_ode.batch.watch import TimeUp, TooLarge, is_given_up

_one_at_a_time = threading.Lock()


def on_worker(task: MemberTask) -> MemberOutcome:
    """What the scheduler gives to a worker: the member is computed by the worker's own process for members."""
    worker = get_worker()
    key = worker.get_current_task()
    if not task.threads:  # a worker of somebody else's cluster has what its owner gave it
        limit = worker.memory_manager.memory_limit
        task = replace(
            task, threads=worker.state.nthreads, memory=int(SHARE * limit) if limit is not None else None
        )

    def is_wanted() -> bool:
        """Has nobody taken the task back, and is there still a scheduler to tell?"""
        if is_given_up(task.batch) or worker.status.name not in ("running", "paused", "closing_gracefully"):
            return False
        state: Any = worker.state.tasks.get(key)
        return state is not None and state.state not in ("cancelled", "released", "forgotten")

    with _one_at_a_time:
        while is_wanted():
            try:
                return cast(MemberOutcome, members.ask(task, is_wanted))
            except Died:
                continue  # the member counts its attempts
            except Ended as ended:
                if ended.why != "unwanted":
                    return _ended(task, TimeUp() if ended.why == "time" else TooLarge())
    return MemberOutcome.of(task, "stopped")


def _ended(task: MemberTask, error: BaseException) -> MemberOutcome:
    from nm_ode.batch.failing import failure_of
    from nm_ode.batch.member import keep_failure, store_of

    found = failure_of(error, task)
    told = keep_failure(store_of(task), task, found) if task.member else found.sentence
    return MemberOutcome.of(task, "failed", told)
