"""When a run took each of its steps, and with which samples: written once by whoever took them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.data import BatchSize, sample_batches
from nm_ode.errors import ArgumentError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class TimeGrid:
    """The steps of a run: learning rates, flow times, samples.

    Attributes:
        lr: shape (N,), the learning rate of each step.
        times: shape (N+1,), flow time at each step's start and at the last one's end (docs/theory.md §1).
        batch_size: "full", or the most samples in a step; "unknown" of a loop of the user's own.
        seed: of the order of the samples.
        n_samples: how many there are.
        augmentation: of images, of which each epoch has the next: "flips, seed 0"; empty where steps take the samples
            as they are. Indices of batches are virtual then (`nm_ode.data.Augmentation`).
    """

    lr: Array
    times: Array
    batch_size: BatchSize | Literal["unknown"]
    seed: int
    n_samples: int
    augmentation: str = ""

    def __repr__(self) -> str:
        size = self.batch_size
        of = f"batches of {size} of" if isinstance(size, int) else f"batch size {size},"
        return f"<TimeGrid: {self.steps} steps to t = {self.times[-1]:.6g}, {of} {self.n_samples} samples>"

    @classmethod
    def planned(
        cls,
        lr: float,
        time_per_step: float,
        factors: Array,
        *,
        batch_size: BatchSize,
        seed: int,
        n_samples: int,
        augmentation: str = "",
    ) -> TimeGrid:
        """The grid of a run that is about to be taken.

        Args:
            lr, time_per_step: of the optimiser: a step of `lr` takes so much flow time.
            factors: shape (N,), of the schedule.
            augmentation: of the samples; all of them together are not augmented.

        Raises:
            ArgumentError: a factor that is not positive and finite.
        """
        bad = np.flatnonzero(~(np.isfinite(factors) & (np.asarray(factors) > 0)))
        if bad.size:
            raise ArgumentError(
                f"the schedule's factor at step {bad[0]} is {factors[bad[0]]:g}: a step takes as much flow time as its "
                "learning rate, so factors must be positive and finite; begin or end at a small one instead"
            )
        lrs = lr * np.asarray(factors, dtype=np.float64)
        if (factors == 1).all():  # to the last digit the times that a user would write
            times = np.arange(len(lrs) + 1) * time_per_step
        else:
            times = np.append(0.0, np.cumsum(lrs)) * (time_per_step / lr)
        if batch_size == "full":
            augmentation = ""
        return cls(lrs, np.asarray(times, dtype=np.float64), batch_size, seed, n_samples, augmentation)

    @property
    def steps(self) -> int:
        """N."""
        return len(self.lr)

    @property
    def is_full_batch(self) -> bool:
        return self.batch_size == "full"

    @property
    def is_constant(self) -> bool:
        """Has every step the same learning rate?"""
        return bool((self.lr == self.lr[:1]).all())

    def first(self, steps: int) -> TimeGrid:
        """The grid of the first steps alone."""
        return replace(self, lr=self.lr[:steps], times=self.times[: steps + 1])

    def each_batch(self) -> Iterator[Tensor | None]:
        """Which samples each step takes, one step after the other; None for all.

        Raises:
            ArgumentError: nobody knows.
        """
        if self.batch_size == "unknown":
            raise ArgumentError(
                "which samples the steps of a recorded loop took is not known: a flow beside it is one of a whole loss"
            )
        batches = sample_batches(
            self.n_samples, self.batch_size, self.seed, augmented=bool(self.augmentation)
        )
        return islice(batches, self.steps)

    @cached_property
    def batches(self) -> tuple[Tensor | None, ...]:
        """Which samples each step took, at any step; None for all."""
        return tuple(self.each_batch())

    @property
    def mean_batch_size(self) -> float:
        """Samples of a step, the mean over the run's time: the last batch of an epoch may be smaller.

        NaN where nobody knows.
        """
        if self.batch_size == "unknown":
            return float("nan")
        if self.batch_size == "full" or not self.steps:
            return float(self.n_samples if self.batch_size == "full" else self.batch_size)
        last = self.n_samples - self.batch_size * ((self.n_samples - 1) // self.batch_size)
        per_epoch = -(-self.n_samples // self.batch_size)
        smaller = float(self.lr[per_epoch - 1 :: per_epoch].sum() / self.lr.sum())
        return self.batch_size - smaller * (self.batch_size - last)

    def step_at(self, time: float) -> int:
        """The step that is under way at a flow time; the first or last outside the run."""
        return int(np.clip(np.searchsorted(self.times, time, side="right") - 1, 0, self.steps - 1))
