"""Learning rate schedules: the factor on `lr` at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nm_ode.arguments import as_count, as_number, said
from nm_ode.errors import ArgumentError
from nm_ode.registry import Registry
from nm_ode.required import LARGEST, as_positive


class Schedule(Protocol):
    """A factor for each step.

    Example:
        >>> import numpy as np
        >>> import nm_ode
        >>> class InverseRoot:
        ...     def factors(self, steps):
        ...         return 1 / np.sqrt(1 + np.arange(steps))
        >>> InverseRoot().factors(4).round(2), nm_ode.Warmup(steps=2).factors(4)
        (array([1.  , 0.71, 0.58, 0.5 ]), array([0.5, 1. , 1. , 1. ]))
    """

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

    Args:
        at: steps, positive and increasing; or one.
        factor: above 0.

    Raises:
        ArgumentError: steps that do not increase, or a factor that is not positive.

    Example:
        >>> import nm_ode
        >>> nm_ode.Drop(at=(2, 4), factor=0.1).factors(6)
        array([1.  , 1.  , 0.1 , 0.1 , 0.01, 0.01])
    """

    at: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        given: Any = self.at
        if not isinstance(given, list | tuple | range | np.ndarray) or getattr(given, "ndim", 1) == 0:
            given = (given,)  # one step
        at = tuple(
            as_count(step, f"a drop's step at[{i}]", least=0, most=LARGEST) for i, step in enumerate(given)
        )
        if list(at) != sorted(set(at)) or (at and at[0] < 1):
            raise ArgumentError(f"a drop's steps must be positive and increase; {list(at)} was given")
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "factor", as_positive(self.factor, "a drop's factor"))

    def factors(self, steps: int) -> NDArray[np.float64]:
        """Shape (steps,), by which `lr` is multiplied at each step."""
        return self.factor ** np.searchsorted(np.array(self.at), np.arange(steps), side="right").astype(float)


@dataclass(frozen=True)
class Warmup:
    """Linear from 1/steps to 1 over the first `steps` steps, then constant.

    Args:
        steps: at least 1.

    Raises:
        ArgumentError: fewer than one step.

    Example:
        >>> import nm_ode
        >>> nm_ode.Warmup(steps=4).factors(6)
        array([0.25, 0.5 , 0.75, 1.  , 1.  , 1.  ])
    """

    steps: int

    def __post_init__(self) -> None:
        steps = as_count(self.steps, "a warm-up's steps", least=-LARGEST, most=LARGEST)
        if steps < 1:
            raise ArgumentError(f"a warm-up needs at least one step; {steps} was given")
        object.__setattr__(self, "steps", steps)

    def factors(self, steps: int) -> NDArray[np.float64]:
        """Shape (steps,), by which `lr` is multiplied at each step."""
        return np.minimum(1.0, (np.arange(steps) + 1) / self.steps)


@dataclass(frozen=True)
class Cosine:
    """From 1 down to `final` along half a cosine over the whole run, after a linear warm-up.

    Args:
        final: the factor that it tends to, in (0, 1].
        warmup: steps of the warm-up; 0 for none.

    Raises:
        ArgumentError: final outside (0, 1], or a negative warm-up.

    Example:
        >>> import nm_ode
        >>> nm_ode.Cosine(final=0.1, warmup=2).factors(6).round(2)
        array([0.5 , 1.  , 1.  , 0.87, 0.55, 0.23])
    """

    final: float = 0.01
    warmup: int = 0

    def __post_init__(self) -> None:
        final = as_number(self.final, "a cosine's final factor")
        if not 0 < final <= 1:
            raise ArgumentError(f"a cosine's final factor must lie in (0, 1]; {said(self.final)} was given")
        object.__setattr__(self, "final", final)
        warmup = as_count(self.warmup, "warmup", least=-LARGEST, most=LARGEST)
        if warmup < 0:
            raise ArgumentError(f"warmup must be 0 or more; {warmup} was given")
        object.__setattr__(self, "warmup", warmup)

    def factors(self, steps: int) -> NDArray[np.float64]:
        """Shape (steps,), by which `lr` is multiplied at each step."""
        ramp = (np.arange(steps) + 1) / max(self.warmup, 1)
        done = np.clip((np.arange(steps) - self.warmup) / max(steps - self.warmup, 1), 0, 1)
        down = self.final + (1 - self.final) * 0.5 * (1 + np.cos(np.pi * done))
        return np.where(np.arange(steps) < self.warmup, ramp, down)


def factors_of(schedule: Any, lr: float, steps: int) -> NDArray[np.float64]:
    """The factors of a run's steps; all 1 where there is no schedule.

    Args:
        schedule: what a caller gives as one.
        lr: that they act on.

    Raises:
        ArgumentError: no schedule, or one whose learning rates are not as many positive numbers as there are steps.
    """
    if schedule is None:
        schedule = Constant()
    if isinstance(schedule, type) or not callable(getattr(schedule, "factors", None)):
        raise ArgumentError(
            "schedule must be one of nm_ode, such as nm_ode.Cosine(), or an object whose factors(steps) gives the "
            f"factor on lr at each step; {said(schedule)} was given"
        )
    given = schedule.factors(steps)
    try:
        factors = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"schedule: factors(steps) gave {said(given)}; it must give numbers") from None
    if factors.shape != (steps,):
        raise ArgumentError(f"schedule: factors({steps}) has shape {factors.shape}; it must have ({steps},)")
    require_rates(lr, factors)
    return factors


def require_rates(lr: float, factors: NDArray[np.float64]) -> None:
    """Raises ArgumentError for a learning rate that is no number to compute with: charges divide by its square."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rates = lr * factors
    right = (rates >= _SMALLEST) & (rates <= _LARGEST)
    if not right.all():
        step = int(np.argmin(right))
        times = "" if (factors == 1).all() else f" ({lr:g} times the schedule's {factors[step]:g})"
        raise ArgumentError(
            f"lr is {rates[step]:g} in step {step}{times}; it must lie between {_SMALLEST:g} and {_LARGEST:g}"
        )


_SMALLEST, _LARGEST = 1e-150, 1e300


SCHEDULES: Registry[type[Schedule]] = Registry("schedule", {"drop": Drop, "warmup": Warmup, "cosine": Cosine})
"""Name in a case file → class.

Example:
    >>> from nm_ode.optimizers import SCHEDULES
    >>> sorted(SCHEDULES)
    ['cosine', 'drop', 'warmup']
    >>> SCHEDULES["warmup"](steps=2).factors(4)
    array([0.5, 1. , 1. , 1. ])
"""
