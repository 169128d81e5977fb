"""Learning-rate schedules: the factor on `lr` at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nm_ode.errors import ArgumentError
from nm_ode.registry import Registry


class Schedule(Protocol):
    """A factor for each step."""

    def factors(self, steps: int) -> NDArray[np.float64]:
        """Shape (steps,), positive."""
        ...


@dataclass(frozen=True)
class Constant:
    """The learning rate as it is."""

    def factors(self, steps: int) -> NDArray[np.float64]:
        return np.ones(steps)


@dataclass(frozen=True)
class Drop:
    """Multiply by `factor` from each of the steps `at` on, as torch's MultiStepLR.

    Raises:
        ArgumentError: steps that do not increase, or a factor that is not positive.
    """

    at: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        if list(self.at) != sorted(set(self.at)) or (self.at and self.at[0] < 1):
            raise ArgumentError(f"a drop's steps must be positive and increase; {list(self.at)} was given")
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ArgumentError(f"a drop's factor must be a positive number; {self.factor} was given")

    def factors(self, steps: int) -> NDArray[np.float64]:
        return self.factor ** np.searchsorted(np.array(self.at), np.arange(steps), side="right").astype(float)


@dataclass(frozen=True)
class Warmup:
    """Linear from 1/steps to 1 over the first `steps` steps, then constant.

    Raises:
        ArgumentError: fewer than one step.
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ArgumentError(f"a warm-up needs at least one step; {self.steps} was given")

    def factors(self, steps: int) -> NDArray[np.float64]:
        return np.minimum(1.0, (np.arange(steps) + 1) / self.steps)


@dataclass(frozen=True)
class Cosine:
    """From 1 down to `final` along half a cosine over the whole run, after a linear warm-up.

    Raises:
        ArgumentError: final outside (0, 1], or a negative warm-up.
    """

    final: float = 0.01
    warmup: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.final <= 1:
            raise ArgumentError(f"a cosine's final factor must lie in (0, 1]; {self.final} was given")
        if self.warmup < 0:
            raise ArgumentError(f"warmup must be 0 or more; {self.warmup} was given")

    def factors(self, steps: int) -> NDArray[np.float64]:
        ramp = (np.arange(steps) + 1) / max(self.warmup, 1)
        done = np.clip((np.arange(steps) - self.warmup) / max(steps - self.warmup, 1), 0, 1)
        down = self.final + (1 - self.final) * 0.5 * (1 + np.cos(np.pi * done))
        return np.where(np.arange(steps) < self.warmup, ramp, down)


SCHEDULES: Registry[type[Schedule]] = Registry("schedule", {"drop": Drop, "warmup": Warmup, "cosine": Cosine})
"""Name in a case file → class."""
