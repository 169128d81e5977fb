"""Is it faster to let all members take each step at once than one member after another? A few steps show it."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nm_ode.observers import Observer
from nm_ode.planned import PlannedRun
from nm_ode.together.members import Members
from nm_ode.together.training import train_at_once, why_not

_STEPS = 8
"""That are measured; the first ones are not, in which much is made that later steps find."""

_WARM_UP = 2


@dataclass(frozen=True)
class Worth:
    """What a step of all members takes, in seconds.

    Attributes:
        at_once: of all of them at once; NaN where that is not possible.
        in_turn: of one after another.
        why_not: why it is not possible; empty if it is.
    """

    at_once: float
    in_turn: float
    why_not: str = ""

    @property
    def is_faster(self) -> bool:
        """At once?"""
        return self.at_once < self.in_turn

    @property
    def speed_up(self) -> float:
        return self.in_turn / self.at_once


def measured(
    members: Members,
    plans: Sequence[PlannedRun],
    observers: Sequence[Observer],
    first_alone: Callable[[Sequence[Observer], Callable[[int], None]], Any],
) -> Worth:
    """What a few steps take, of all members at once and of the first.

    Args:
        observers: are copied: what they see here they do not remember.
        first_alone: trains the first member, with these observers and this `on_step`.
    """
    reason = why_not(plans)
    at_once = float("nan")
    if not reason:
        at_once = _seconds(
            lambda on_step: train_at_once(members, plans, copy.deepcopy(observers), on_step, None)
        )
    in_turn = _seconds(lambda on_step: first_alone(copy.deepcopy(observers), on_step)) * members.count
    return Worth(at_once, in_turn, reason)


class _Enough(Exception):  # noqa: N818 (nothing is wrong)
    """So many steps were taken as were wanted."""


def _seconds(train: Callable[[Callable[[int], None]], Any]) -> float:
    """Of one step of a training, the median of a few; the rest of it is not taken."""
    seen = [time.perf_counter()]

    def on_step(done: int) -> None:
        seen.append(time.perf_counter())
        if done >= _STEPS:
            raise _Enough

    with contextlib.suppress(_Enough):
        train(on_step)
    took = np.diff(seen)
    return float(np.median(took[_WARM_UP:] if len(took) > _WARM_UP else took))
