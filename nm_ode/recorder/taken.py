"""The steps that a loop took: all of them for a run in memory, and of any run what its record says of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from nm_ode.optimizers import Optimizer


@dataclass
class Taken:
    """Learning rates and flow times of the steps.

    Attributes:
        kept: are they kept? A store has them otherwise, and memory must not grow with the run.
        known_lr: of the optimiser when the recorder was made; None where nobody knows the optimiser.
        share: flow time of a step with learning rate 1.
        steps, time: taken so far, and the flow time after them.
        lrs, times: shapes (N,) and (N+1,), where they are kept.
        first: learning rate of the first step.
        moving: the first that is above 0.
        met: was one of them `known_lr`?
    """

    kept: bool
    known_lr: float | None
    share: float
    steps: int = 0
    time: float = 0.0
    lrs: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=lambda: [0.0])
    first: float = 0.0
    moving: float | None = None
    met: bool = False

    @classmethod
    def of(cls, optimizer: Optimizer | None, *, in_memory: bool) -> Taken:
        """None yet, of an optimiser that nm_ode knows, or of another."""
        if optimizer is None:
            return cls(in_memory, None, 1.0)
        return cls(in_memory, optimizer.lr, optimizer.time_per_step / optimizer.lr)

    def add(self, lr: float) -> None:
        """A step was taken."""
        self.first = self.first if self.steps else lr
        self.moving = lr if self.moving is None and lr > 0 else self.moving
        self.met = self.met or lr == self.known_lr
        self.steps, self.time = self.steps + 1, self.time + lr * self.share
        if self.kept:
            self.lrs.append(lr)
            self.times.append(self.time)
