"""Members on the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

from distributed import Client, Future

from nm_ode.batch.standing import Standing, Told
from nm_ode.batch.tasks import BatchError, MemberOutcome, MemberTask
from nm_ode.batch.waiting import Waiting
from nm_ode.batch.watch import give_up
from nm_ode.batch.worker import killed, on_worker

_TICK = 0.25  # seconds
_COUNT = 2.0  # seconds between two looks at how many workers there are
_GRACE = 8.0  # seconds that members have to keep how far they are


def on_workers(
    client: Client, tasks: Sequence[MemberTask], standing: Standing, told: Told, *, alone: bool
) -> Iterator[MemberOutcome]:
    """Run the tasks; their outcomes as they come. At any end the members that still run are told to.

    Args:
        alone: is the cluster this batch's own?

    Raises:
        BatchError: the connection to the scheduler is lost, or its workers cannot run members.
    """
    batch = _Batch(client, tasks, standing, alone)
    try:
        while batch.goes_on():
            told(standing)
            outcome = batch.next()
            if outcome is not None:
                standing.take(outcome)
                yield outcome
                if outcome.ends_batch:
                    break
        told(standing)
    finally:
        for late in batch.end():
            standing.take(late)


class _Batch:
    """What is sent, and what is not yet.

    Args:
        client, tasks, standing, alone: as of `on_workers`.
    """

    def __init__(self, client: Client, tasks: Sequence[MemberTask], standing: Standing, alone: bool) -> None:
        self._client, self._standing, self._alone = client, standing, alone
        self._waiting, self._id = Waiting(tasks), tasks[0].batch if tasks else ""
        self._sent: dict[str, tuple[Future[MemberOutcome], MemberTask]] = {}
        self._came: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._sendings, self._counted = 0, -_COUNT

    def goes_on(self) -> bool:
        """Is there anything left? Sends as many as the workers can have."""
        self._require_scheduler()
        now = time.monotonic()
        if now - self._counted >= _COUNT:
            self._counted = now
            self._standing.workers = self._count()
        workers = self._standing.workers
        # A cluster that grows with what is to do must see that there is something.
        room = workers + 1 if self._alone else 2 * workers + 16
        while len(self._sent) < room and (task := self._waiting.take(now)) is not None:
            self._send(task)
        self._standing.running = min(len(self._sent), workers)
        self._standing.busy = self._waiting.busy
        return bool(self._sent or len(self._waiting))

    def next(self) -> MemberOutcome | None:
        """The next outcome, if one comes in a moment."""
        try:
            key = self._came.get(timeout=_TICK)
        except queue.Empty:
            return None
        future, task = self._sent.pop(key)
        try:
            return self._outcome(future, task)
        except (
            OSError,
            CancelledError,
        ):  # the result was under way from a scheduler or a worker that is gone
            self._require_answer()
            self._waiting.put_back(task)
            return None
        finally:
            future.release()

    def end(self) -> list[MemberOutcome]:
        """Tell the members that run that nobody waits for them; the outcomes of those that were done meanwhile."""
        if not self._sent or self._client.status != "running":
            return []
        late = []
        with contextlib.suppress(Exception):  # nothing but courtesy
            self._client.run(give_up, self._id, wait=False, on_error="ignore")
            until = time.monotonic() + _GRACE
            while self._sent and (left := until - time.monotonic()) > 0:
                future, _ = self._sent.pop(self._came.get(timeout=left))
                if future.status == "finished":
                    late.append(future.result(timeout=1))
        with contextlib.suppress(Exception):
            self._client.cancel([future for future, _ in self._sent.values()], force=True)
        return [outcome for outcome in late if outcome.status in ("done", "whole")]

    def _send(self, task: MemberTask) -> None:
        self._sendings += 1
        key = f"{task.study}-{task.batch}-{self._sendings}"
        future = self._client.submit(on_worker, task, key=key, pure=False, retries=0)
        self._sent[key] = (future, task)
        future.add_done_callback(lambda done: self._came.put(done.key))

    def _outcome(self, future: Future[MemberOutcome], task: MemberTask) -> MemberOutcome | None:
        status = future.status
        if status == "finished":
            outcome: MemberOutcome = future.result(timeout=30)
            if outcome.status == "busy":
                self._waiting.put_off(task, time.monotonic())
                return None
            if outcome.status == "stopped":  # by its worker, which goes
                self._waiting.put_back(task)
                return None
            return outcome
        if status != "error":  # the scheduler has forgotten it
            self._require_scheduler()
            self._waiting.put_back(task)
            return None
        error = future.exception(timeout=30)
        if type(error).__name__ == "KilledWorker":
            return killed(task)
        raise BatchError(
            f"the workers cannot run members ({type(error).__name__}: {error}): they need the same nm_ode, with the "
            "same libraries, as the command"
        )

    def _count(self) -> int:
        try:
            return len(self._client.nthreads())
        except Exception:
            self._require_scheduler()
            return self._standing.workers

    def _require_answer(self) -> None:
        """Of a scheduler that has just gone the client may not know yet: it is asked."""
        self._require_scheduler()
        try:
            self._client.nthreads()
        except Exception:
            raise _lost() from None

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise _lost()


def _lost() -> BatchError:
    return BatchError(
        "the connection to the scheduler is lost; what is whole is kept, and the same command finishes what is missing"
    )
