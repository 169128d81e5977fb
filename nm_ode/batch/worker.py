"""What runs in a Dask worker: little, and without torch, for the members have a process of their own."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distributed import get_worker

from nm_ode.batch.child import Died, Ended, members
from nm_ode.batch.machine import SHARE
from nm_ode.batch.tasks import ALLOWED, MemberOutcome, MemberTask
from nm_ode.batch.watch import TimeUp, TooLarge, is_given_up

if TYPE_CHECKING:
    from nm_ode.results.study import Failure

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

    deaths = 0
    with _one_at_a_time:
        while is_wanted():
            try:
                return members.ask(task, is_wanted)
            except Died:
                deaths += 1  # the member counts its attempts, if it comes so far
                if deaths > 2 * ALLOWED:
                    return killed(task)
            except Ended as ended:
                if ended.why != "unwanted":
                    return _ended(task, TimeUp() if ended.why == "time" else TooLarge())
    return MemberOutcome.of(task, "stopped")


def killed(task: MemberTask) -> MemberOutcome:
    """Of a task whose processes are killed again and again, before the member can count them."""
    from nm_ode.batch.failing import failure

    return _kept(task, failure("killed", "what ran it was killed again and again; its log may say more"))


def _ended(task: MemberTask, error: BaseException) -> MemberOutcome:
    from nm_ode.batch.failing import failure_of

    return _kept(task, failure_of(error, task))


def _kept(task: MemberTask, found: Failure) -> MemberOutcome:
    from nm_ode.batch.member import keep_failure, store_of

    told = keep_failure(store_of(task), task, found) if task.member else found.sentence
    return MemberOutcome.of(task, "failed", told)
