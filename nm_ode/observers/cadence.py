"""At which steps an observer looks: a value that every observer with steps of its own takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from nm_ode.arguments import as_count, said
from nm_ode.errors import ArgumentError
from nm_ode.observers.base import OPEN_END, Context


@dataclass(frozen=True)
class Every:
    """At steps 0, n, 2n, … of a run, whether its end is known or not.

    Args:
        n: from one step to the next.

    Raises:
        ArgumentError: n is no whole number above 0.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> hessian = nm_ode.Hessian(every=nm_ode.Every(4), top=1)
        >>> nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=9, observe=[hessian]).hessian_step.values
        array([0, 4, 8])
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", as_count(self.n, "every"))

    def steps(self, context: Context) -> Collection[int]:
        """Before which steps; not after the last."""
        return range(0, context.steps if not context.open_ended else OPEN_END, self.n)


def as_save_every(value: Any) -> int | tuple[int, ...]:
    """At which steps theta is to be kept: every so many, or those of a list, in order.

    Raises:
        ArgumentError: neither.
    """
    several = isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0
    if several and not isinstance(value, str | bytes | dict):
        return tuple(sorted({as_count(step, "save_every", least=0) for step in value}))
    return as_count(value, "save_every")


def saved_steps(save_every: int | tuple[int, ...], steps: int) -> Collection[int]:
    """Before which steps theta is kept; before the first and after the last always.

    Args:
        save_every: as `as_save_every` gives it.
        steps: N; OPEN_END if nobody knows: then whoever records keeps the last without being told.

    Raises:
        ArgumentError: a step beyond the last.
    """
    last = () if steps == OPEN_END else (steps,)
    if isinstance(save_every, int):
        every = range(0, steps, save_every)
        return (*every, *last) if last else every
    if save_every and save_every[-1] > steps:
        raise ArgumentError(
            f"save_every: step {said(save_every[-1])} was given, and the run has {said(steps)} steps"
        )
    return tuple(sorted({0, *save_every, *last}))
