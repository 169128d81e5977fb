"""The tasks of a batch that are not begun: in their order; those that another command has, again after a while."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count

from nm_ode.batch.tasks import MemberTask

_FIRST, _LONGEST = 0.5, 10.0  # seconds until a busy member is tried again


class Waiting:
    """What is to be done.

    Args:
        tasks: in their order.
    """

    def __init__(self, tasks: Iterable[MemberTask]) -> None:
        self._order = count()
        self._due = [(0.0, next(self._order), task) for task in tasks]
        self._pauses: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._due)

    @property
    def busy(self) -> int:
        """How many of them another command has."""
        return sum(due > 0 for due, _, _ in self._due)

    def take(self, now: float) -> MemberTask | None:
        """The next that may be tried now."""
        return heapq.heappop(self._due)[2] if self._due and self._due[0][0] <= now else None

    def put_off(self, task: MemberTask, now: float) -> None:
        """Another command has it."""
        key = (task.study, task.member)
        pause = self._pauses[key] = min(2 * self._pauses.get(key, _FIRST / 2), _LONGEST)
        heapq.heappush(self._due, (now + pause, next(self._order), task))

    def put_back(self, task: MemberTask) -> None:
        """Nobody has begun it."""
        heapq.heappush(self._due, (0.0, next(self._order), task))

    def until(self, now: float) -> float:
        """Seconds until there may be one to try."""
        return max(0.0, self._due[0][0] - now) if self._due else 0.0
