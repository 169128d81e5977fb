"""How far a batch is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nm_ode.batch.tasks import MemberOutcome


@dataclass
class Standing:
    """How far a batch is; whoever runs it keeps this up to date.

    Attributes:
        total: members, with those that were whole at the start.
        whole, done, failed: how many were there before, are done now, failed.
        running, busy: how many are being computed, here and by other commands.
        workers: that compute.
    """

    total: int
    whole: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    busy: int = 0
    workers: int = 1
    began: float = field(default_factory=time.monotonic)
    _seconds: float = 0.0

    @property
    def over(self) -> int:
        """Members that need nothing more now."""
        return self.whole + self.done + self.failed

    def take(self, outcome: MemberOutcome) -> None:
        """A member came to its end."""
        if outcome.status == "done":
            self.done += 1
            self._seconds += outcome.seconds
        elif outcome.status == "whole":
            self.whole += 1
        elif outcome.status in ("failed", "mistake"):
            self.failed += 1

    @property
    def seconds_left(self) -> float | None:
        """By the members that were done; None before there is one."""
        if not self.done:
            return None
        return (self.total - self.over) * self._seconds / self.done / max(1, self.workers)


Told = Callable[[Standing], None]
"""Told from time to time how far the batch is."""
