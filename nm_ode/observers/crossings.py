"""How many units cross their kink in one step of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from nm_ode.loss import Problem
from nm_ode.loss.nonsmooth import changed_share, sides


class CrossingRecord:
    """Watches a run: the share of units on another side of their kink after a step than before, at some steps.

    Args:
        first: steps to look at.
    """

    def __init__(self, problem: Problem, first: Sequence[int]) -> None:
        self.steps = frozenset([*first, *(step + 1 for step in first)])
        self._problem, self._first = problem, frozenset(first)
        self._before: list[Tensor] = []
        self._before_step = -1
        self.shares: dict[int, float] = {}

    def __call__(self, step: int, state: Tensor) -> None:
        """Compare with the state one step ago."""
        now = sides(self._problem, state[: self._problem.layout.size])
        if self._before_step == step - 1 and step - 1 in self._first:
            self.shares[step - 1] = changed_share(self._before, now)
        self._before, self._before_step = now, step

    @property
    def mean(self) -> float:
        """Over the steps looked at; NaN without any."""
        return float(np.mean(list(self.shares.values()))) if self.shares else np.nan
