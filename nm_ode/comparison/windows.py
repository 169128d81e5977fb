"""Windows of weights over consecutive steps, the averages they make, and what they leave of an oscillation.

A run past the edge of stability is a slow path with an oscillation on it that changes its sign at every step,
θ_k = w_k + (−1)^k δ_k. A window that leaves nothing of an alternating sign gives w back: the three steps
(θ_{k−1} + 2θ_k + θ_{k+1})/4 do so exactly, and a straight path stays as it is; of a path that bends, w̄ = w + w″/4,
and of a size that changes, (−1)^k δ″/4 is left, both with second differences (docs/theory.md §5.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nm_ode.arguments import as_number, said
from nm_ode.errors import ArgumentError

Array = NDArray[np.float64]

_DEVIATIONS = 4.0  # of a Gaussian window that are kept on each side: the rest has 6e-5 of the weight
_NARROWEST = 1.0  # steps: a narrower one leaves more than a seventieth of the oscillation in the average
_WIDEST = 1e5
_BLOCK_BYTES = 1 << 25


@dataclass(frozen=True)
class Window:
    """Weights of 2r + 1 consecutive steps.

    Args:
        weights: symmetric, with the sum 1, an odd number of them.
        title: for a reader.

    Raises:
        ArgumentError: weights that are not so, or that leave more than half of an oscillation of period two.
    """

    weights: tuple[float, ...] = field(repr=False)
    title: str

    def __post_init__(self) -> None:
        given = np.asarray(self.weights, dtype=np.float64)
        symmetric = given.ndim == 1 and len(given) % 2 == 1 and np.allclose(given, given[::-1], rtol=1e-12)
        if not symmetric or not math.isclose(float(given.sum()), 1.0, rel_tol=1e-9):
            raise ArgumentError(
                f"weights must be symmetric, an odd number of them with the sum 1; {said(self.weights)} was given"
            )
        object.__setattr__(self, "weights", tuple(float(weight) for weight in given))
        if abs(self.alternating) > 0.5:
            raise ArgumentError(
                f"weights: this window leaves {self.alternating:.2g} of an oscillation of period two in the average: "
                "take a wider one"
            )

    @property
    def reach(self) -> int:
        """r: how many steps before and after its own a mean takes."""
        return len(self.weights) // 2

    @property
    def alternating(self) -> float:
        """What the window makes of (−1)^k: 0 where it removes an oscillation of period two."""
        return math.fsum(weight * (-1.0) ** (place - self.reach) for place, weight in enumerate(self.weights))

    @property
    def variance_factor(self) -> float:
        """‖δ̂‖² of what the window calls the oscillation, over ‖δ‖² of one of period two."""
        return (1.0 - self.alternating) ** 2


THREE_STEPS = Window((0.25, 0.5, 0.25), "three steps, with the weights 1/4, 1/2 and 1/4")
"""The shortest that leaves nothing of an alternating sign and is centred at its step."""


def gaussian_window(width: float) -> Window:
    """A Gaussian window, cut off after four standard deviations (docs/theory.md §5.1).

    Args:
        width: standard deviation in steps, at least 1.

    Returns:
        A `Window`, for `compare(run, solution, average=…)`.

    Raises:
        ArgumentError: a width below 1, or none.

    Example:
        >>> import nm_ode
        >>> window = nm_ode.gaussian_window(2.0)
        >>> window.title, window.reach, len(window.weights)
        ('Gaussian window, 2 steps wide', 8, 17)
        >>> abs(window.alternating) < 1e-4
        True
    """
    width = float(as_number(width, "width"))
    if not _NARROWEST <= width <= _WIDEST:
        raise ArgumentError(f"width must be a number of steps from 1 to {_WIDEST:g}; {said(width)} was given")
    reach = math.ceil(_DEVIATIONS * width)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return Window(tuple((weights / weights.sum()).tolist()), f"Gaussian window, {width:g} steps wide")


def time_average(values: Array, window: Window) -> Array:
    """The window's mean along the first axis, at each row.

    Returns:
        Of the shape of `values`; NaN in the first and last rows, which the window does not fit around.
    """
    found = np.full(values.shape, np.nan)
    inside = len(values) - 2 * window.reach
    if inside > 0:
        found[window.reach : window.reach + inside] = _means(values, window)
    return found


def oscillation(values: Array, window: Window) -> Array:
    """values − `time_average`."""
    return np.asarray(values - time_average(values, window))


def variance(squares: Array, window: Window) -> Array:
    """The window's mean of an oscillation's squares; of one of period two its own, which the window may lessen.

    Args:
        squares: of `oscillation` by the same window, along the first axis.
    """
    return time_average(squares, window) / window.variance_factor


def by_blocks(values: Array, window: Window) -> Iterator[tuple[slice, Array]]:
    """`time_average` of long rows, some at a time: the places, and the means there; NaN as there."""
    reach, count = window.reach, len(values)
    row_bytes = max(8 * math.prod(values.shape[1:]), 1)
    at_a_time = max(_BLOCK_BYTES // row_bytes, 1)
    for first in range(0, count, at_a_time):
        last = min(first + at_a_time, count)
        means = np.full((last - first, *values.shape[1:]), np.nan)
        begin, end = max(first, reach), min(last, count - reach)
        if begin < end:
            means[begin - first : end - first] = _means(values[begin - reach : end + reach], window)
        yield slice(first, last), means


def _means(values: Array, window: Window) -> Array:
    """At the rows that the window fits around."""
    inside = len(values) - 2 * window.reach
    found = np.zeros((inside, *values.shape[1:]))
    for place, weight in enumerate(window.weights):
        found += weight * values[place : place + inside]
    return found
