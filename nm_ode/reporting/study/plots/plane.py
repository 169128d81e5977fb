"""Two axes of a study as a plane: which two, what is between the rest, and how places along an axis are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.comparison.study.numbers import FAILED, MISSING, STATES, axes_of
from nm_ode.errors import ArgumentError
from nm_ode.reporting.style import plain

_REPEATS = ("seed", "data_seed")
"""Axes of repetitions: they are what medians are taken over, where there is a choice."""


@dataclass(frozen=True)
class Plane:
    """Two axes of a study.

    Attributes:
        x, y: their names.
        columns, rows: places along them, in the order in which they are drawn: numbers rise.
        over: the other axes, over whose places medians are taken.
    """

    x: str
    y: str
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    over: tuple[str, ...] = ()

    def median(self, values: xr.DataArray) -> NDArray[np.float64]:
        """(y, x): the median of what is known; NaN where nothing is."""
        flat = self._laid(values).astype(float)
        found = np.full(flat.shape[:2], np.nan)
        known = np.isfinite(flat)
        for place in np.argwhere(known.any(-1)):
            there = tuple(place)
            found[there] = np.median(flat[there][known[there]])
        return found

    def state(self, states: xr.DataArray) -> NDArray[np.object_]:
        """(y, x): the worst state of what is there; FAILED or MISSING only where nothing is there."""
        flat = self._laid(states)
        rank = np.vectorize(STATES.index, otypes=[int])(flat)
        there = rank < STATES.index(FAILED)
        some = np.where(there, rank, -1).max(-1)
        nothing = np.where((flat == FAILED).any(-1), STATES.index(FAILED), STATES.index(MISSING))
        return np.array(STATES, dtype=object)[np.where(there.any(-1), some, nothing)]

    def some_lost(self, states: xr.DataArray) -> NDArray[np.bool_]:
        """(y, x): are some members there, and others not?"""
        gone = np.isin(self._laid(states), (FAILED, MISSING))
        return np.asarray(gone.any(-1) & ~gone.all(-1))

    def _laid(self, values: xr.DataArray) -> NDArray[Any]:
        """(y, x, what is between the other axes)."""
        laid = values.transpose(self.y, self.x, *self.over).values
        return laid.reshape(*laid.shape[:2], -1)[np.ix_(self.rows, self.columns)]


def plane_of(numbers: xr.Dataset, x: str | None = None, y: str | None = None) -> Plane | None:
    """The plane of two named axes, or of the two that say most; None where the study has one axis alone."""
    axes = axes_of(numbers)
    for name in (x, y):
        if name is not None and name not in axes:
            raise ArgumentError(f"the study has no axis {name!r}; its axes are {', '.join(axes)}")
    longer = [name for name in axes if numbers.sizes[name] > 1]
    # Repetitions last; otherwise in the case's order, which is the user's.
    choice = sorted(longer, key=lambda name: name in _REPEATS)
    for name in (y, x):
        if name is not None:
            choice = [name, *(other for other in choice if other != name)]
    chosen = [x or "", y or ""]
    for i in range(2):
        free = [name for name in choice if name not in chosen]
        if not chosen[i] and free:
            chosen[i] = free[0]
    if not all(chosen) or chosen[0] == chosen[1]:
        return None
    columns, rows = (
        tuple(np.argsort(positions(numbers, name)[0], kind="stable").tolist()) for name in chosen
    )
    return Plane(chosen[0], chosen[1], columns, rows, tuple(name for name in axes if name not in chosen))


def places(numbers: xr.Dataset, axis: str) -> list[str]:
    """What each place along an axis is called."""
    if axis not in numbers.coords:
        return [str(i) for i in range(numbers.sizes[axis])]
    return [
        f"{value:g}" if _is_number(value) else plain(str(value)) for value in numbers[axis].values.tolist()
    ]


def positions(numbers: xr.Dataset, axis: str) -> tuple[NDArray[np.float64], bool]:
    """Where each place lies on a drawn axis, and whether the drawn axis is logarithmic; names lie side by side."""
    given = numbers[axis].values if axis in numbers.coords else np.arange(numbers.sizes[axis])
    if given.dtype.kind not in "fiu":
        return np.arange(len(given), dtype=float), False
    values = given.astype(float)
    if not np.isfinite(values).all():
        return np.arange(len(given), dtype=float), False
    return values, axis not in _REPEATS and _is_geometric(values)


def _is_geometric(values: NDArray[np.float64]) -> bool:
    """Do the values lie more evenly on a logarithmic axis, and far enough apart for one?"""
    low, high = values.min(), values.max()
    if low <= 0 or high < 3.9 * low:
        return False
    rising = np.unique(values)
    gaps, ratios = np.diff(rising / high), np.diff(np.log(rising))  # squares of gaps overflow else
    return bool(np.std(ratios) / ratios.mean() < np.std(gaps) / gaps.mean() or high >= 30 * low)


def repeats(axis: str) -> bool:
    """Is it an axis of repetitions, whose order means nothing?"""
    return axis in _REPEATS


def is_named(numbers: xr.Dataset, axis: str) -> bool:
    """Are its places names, and not numbers?"""
    return axis in numbers.coords and numbers[axis].dtype.kind not in "fiu"


def few(labels: Sequence[str], most: int) -> list[int]:
    """At most so many places, evenly spread, the first among them."""
    step = max(1, -(-len(labels) // most))
    return list(range(0, len(labels), step))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
