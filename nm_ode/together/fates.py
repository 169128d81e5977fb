"""Which members are living, and where the others' losses were no longer finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nm_ode.planned import steps_between_checks

_LIVING = -1


class Fates:
    """Of M members.

    Attributes:
        living: their numbers.
        rows: their rows of a matrix of all members; a slice where all are living.
    """

    def __init__(self, members: int, device: torch.device) -> None:
        self._ended = torch.full((members,), _LIVING, device="cpu")
        self._losses = torch.zeros(members, dtype=torch.float64, device="cpu")
        self._together = steps_between_checks(device)
        self._waiting: dict[int, Tensor] = {}
        self._count()

    def take(self, step: int, losses: Tensor, *, now: bool) -> None:
        """The losses before a step, shape (M,).

        Args:
            now: know at once who is living, which waits for a device.
        """
        self._waiting[step] = losses
        if now or len(self._waiting) >= self._together:
            self.settle()

    def settle(self) -> None:
        """Look at the losses that were not looked at yet."""
        for step, losses in self._waiting.items():
            finite = losses.isfinite()
            if finite.all():
                continue
            ending = (self._ended == _LIVING) & ~finite.cpu()
            if ending.any():
                self._ended[ending] = step
                self._losses[ending] = losses.cpu().double()[ending]
                self._count()
        self._waiting.clear()

    def ended(self, member: int) -> tuple[int, float] | None:
        """At which step a member's loss was not finite, and what it was; None of a living one."""
        step = int(self._ended[member])
        return None if step == _LIVING else (step, float(self._losses[member]))

    def snapshot(self) -> dict[str, Tensor]:
        """For `restore`."""
        return {"ended": self._ended, "losses": self._losses}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Go on from what `snapshot` gave."""
        self._ended, self._losses = snapshot["ended"].clone(), snapshot["losses"].clone()
        self._count()

    def _count(self) -> None:
        alive = self._ended == _LIVING
        self.living: list[int] = alive.nonzero().squeeze(1).tolist()
        all_living = len(self.living) == len(alive)
        self.rows: Any = slice(None) if all_living else torch.tensor(self.living, device="cpu")
