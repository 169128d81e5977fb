"""Running a batch, wherever."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import chain

from nm_ode.batch.cluster import local_client, remote_client
from nm_ode.batch.in_process import in_process
from nm_ode.batch.machine import SHARE, Workers
from nm_ode.batch.on_workers import on_workers
from nm_ode.batch.plan import Plan
from nm_ode.batch.standing import Standing, Told
from nm_ode.batch.tasks import MemberOutcome, MemberTask


def run_batch(
    plans: Sequence[Plan], where: Workers | str, standing: Standing, told: Told
) -> Generator[MemberOutcome]:
    """Run what is missing; outcomes as they come. Which process computes a member changes nothing in its results.

    Args:
        where: workers of this machine; or the address of a Dask scheduler, whose workers have what they have.
        standing: kept up to date.
        told: from time to time.

    Raises:
        BatchError: there is no scheduler, or no more.
    """
    if isinstance(where, str):
        with remote_client(where) as client:
            tasks = _tasks(plans, 0, None, len(client.nthreads()))
            yield from on_workers(client, tasks, standing, told, alone=False)
        return
    tasks = _tasks(plans, where.threads, int(SHARE * where.memory) if where.count else None, where.count)
    if not tasks:
        return
    if not where.count:
        yield from in_process(tasks, standing, told)
        return
    with local_client(where.count, where.threads, where.memory, where.gpus) as client:
        yield from on_workers(client, tasks, standing, told, alone=True)


def _tasks(plans: Sequence[Plan], threads: int, memory: int | None, workers: int) -> list[MemberTask]:
    return list(chain.from_iterable(plan.sized(threads, memory, max(1, workers)).tasks for plan in plans))
