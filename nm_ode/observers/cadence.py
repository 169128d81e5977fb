"""At which steps an observer looks: a value that every observer with steps of its own takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nm_ode.arguments import as_count
from nm_ode.observers.base import OPEN_END, Context


@dataclass(frozen=True)
class Every:
    """At steps 0, n, 2n, … of a run, whether its end is known or not.

    Raises:
        ArgumentError: n is no whole number above 0.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", as_count(self.n, "every"))

    def steps(self, context: Context) -> Collection[int]:
        """Before which steps; not after the last."""
        return range(0, context.steps if not context.open_ended else OPEN_END, self.n)
