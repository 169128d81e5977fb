"""SGD's own numbers in a step, which a loop of the user's own may change from one step to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SETTINGS = ("momentum", "dampening", "weight_decay", "nesterov")
"""What beside the learning rate makes a step, by torch's and our names."""


@dataclass(frozen=True)
class Settings:
    """SGD's own numbers in one step.

    Attributes:
        lr, momentum, dampening, weight_decay, nesterov: as `SGD` takes them.
        first: is it the first step of the run, which torch does not dampen?
    """

    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    first: bool

    @classmethod
    def of(cls, hyperparameters: Mapping[str, Any], lr: float, *, first: bool) -> Settings:
        """From hyperparameters by name, and the step's learning rate."""
        return cls(
            lr,
            float(hyperparameters["momentum"]),
            float(hyperparameters["dampening"]),
            float(hyperparameters["weight_decay"]),
            bool(hyperparameters["nesterov"]),
            first,
        )

    @property
    def time(self) -> float:
        """Flow time of the step."""
        return self.lr * (1 - self.dampening) if self.momentum else self.lr

    @property
    def share(self) -> float:
        """Of the direction that goes into the velocity: 1 − τ, and 1 where nothing dampens it."""
        return 1.0 if self.first or not self.momentum else 1 - self.dampening
