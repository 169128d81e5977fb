"""The values that vary in a sweep, and the axes that they make."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from nm_ode.results.study import Axis

MOST_MEMBERS = 1_000_000
SPANS = ("range", "linspace", "geomspace")
ALLOWED = (
    "a list of values, { range = n }, { range = [start, stop] }, { range = [start, stop, step] }, "
    "{ linspace = [first, last, count] } or { geomspace = [first, last, count] }"
)


class SweepMistakeError(ValueError):
    """A sentence on what is wrong with a sweep; who knows file and key puts them in front."""


def is_span(given: Any) -> bool:
    """Is it `{ range = … }` or one of the others?"""
    return isinstance(given, Mapping) and len(given) == 1 and next(iter(given)) in SPANS


def values_of(given: Any) -> tuple[Any, ...]:
    """The values of a key, from a list of them or from the span that a table describes.

    Raises:
        SweepMistakeError: neither; none at all; or one that is there twice.
    """
    if isinstance(given, list):
        values = tuple(given)
    elif is_span(given):
        ((kind, numbers),) = given.items()
        values = _range(numbers) if kind == "range" else _space(kind, numbers)
    else:
        raise SweepMistakeError(f"it must be {ALLOWED}")
    if not values:
        raise SweepMistakeError("it has no value: give at least one")
    return values


def _range(given: Any) -> tuple[Any, ...]:
    """As NumPy's arange, in decimal arithmetic: 0.1, 0.2, 0.3 and not 0.30000000000000004."""
    numbers = given if isinstance(given, list) else [0, given]
    if not 2 <= len(numbers) <= 3 or not all(map(is_number, numbers)):
        raise SweepMistakeError("range must be a number, [start, stop] or [start, stop, step]")
    start, stop, step = (Decimal(str(number)) for number in (*numbers, 1)[:3])
    if step == 0:
        raise SweepMistakeError("range has a step of 0: give another")
    count = max(0, math.ceil((stop - start) / step))
    _require_few(count)
    whole = all(isinstance(number, int) for number in numbers)
    return tuple(int(start + i * step) if whole else float(start + i * step) for i in range(count))


def _space(kind: str, given: Any) -> tuple[float, ...]:
    """NumPy's linspace or geomspace, to 12 digits, and exact at both ends."""
    if not (isinstance(given, list) and len(given) == 3 and all(map(is_number, given))):
        raise SweepMistakeError(f"{kind} must be [first, last, count]")
    first, last, count = given
    if not isinstance(count, int) or count < 2:
        raise SweepMistakeError(f"{kind} must have a whole number of values, at least 2, at its end")
    _require_few(count)
    if kind == "geomspace" and not first * last > 0:
        raise SweepMistakeError(
            "geomspace must have two numbers of one sign that are not 0 as first and last"
        )
    between = getattr(np, kind)(first, last, count)[1:-1]
    return (float(first), *(float(f"{value:.12g}") for value in between), float(last))


def _require_few(count: int) -> None:
    if count > MOST_MEMBERS:
        raise SweepMistakeError(f"it has {count} values, and a sweep has at most {MOST_MEMBERS} members")


def is_number(value: Any) -> bool:
    """A finite number, and neither true nor false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def canonical(value: Any) -> str:
    """One text for values that a case cannot tell apart, such as 1 and 1.0, or tables in another order.

    Raises:
        SweepMistakeError: a date, a time, or a number that is not finite.
    """
    try:
        return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise SweepMistakeError(
            "values must be finite numbers, texts, true or false, or lists and tables of these"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, Mapping) else value


def axes_of(
    values: Mapping[str, tuple[Any, ...]], zipped: Sequence[Sequence[str]], names: Mapping[str, str]
) -> tuple[Axis, ...]:
    """The axes, in the order in which their keys are in the file.

    Args:
        values: of each key that varies.
        zipped: keys that vary together.
        names: short names of the keys.

    Raises:
        SweepMistakeError: keys of other lengths, a key in two of the lists, values that are there twice, or more
            members than anybody can run.
    """
    groups = _groups(values, zipped)
    axes = []
    for group in groups:
        axis = Axis(names[group[0]], {key: values[key] for key in group})
        _require_distinct(axis)
        axes.append(axis)
    _require_few(math.prod(axis.size for axis in axes))
    return tuple(axes)


def _groups(values: Mapping[str, tuple[Any, ...]], zipped: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    together: dict[str, tuple[str, ...]] = {}
    for group in zipped:
        for key in group:
            if key in together or list(group).count(key) > 1:
                raise SweepMistakeError(f"zip: {key} is there twice: let it vary with one list of keys alone")
            together[key] = tuple(group)
        sizes = {key: len(values[key]) for key in group}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{key} has {size}" for key, size in sizes.items())
            raise SweepMistakeError(f"zip: {told} values: give each of them as many")
    return list(dict.fromkeys(together.get(key, (key,)) for key in values))


def _require_distinct(axis: Axis) -> None:
    seen: dict[tuple[str, ...], int] = {}
    for i, row in enumerate(zip(*axis.values.values(), strict=True)):
        key = tuple(map(canonical, row))
        if key in seen:
            told = ", ".join(f"{name}[{seen[key]}] and [{i}]" for name in axis.values)
            raise SweepMistakeError(f"{told} are the same: leave one of them out")
        seen[key] = i
