"""What a study of many members says of itself in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nm_ode.comparison.study.numbers import DIVERGED, FAILED, MISSING, STOPPED, WHOLE, axes_of, with_results
from nm_ode.reporting.formats import count, number

_WORDS = {
    WHOLE: "whole",
    DIVERGED: "diverged",
    STOPPED: "with a part that failed",
    FAILED: "failed",
    MISSING: "not run yet",
}
MOST_TOLD = 200
_NAMED = 12  # members in one sentence


@dataclass(frozen=True)
class Trouble:
    """A member that is not whole, and why."""

    member: str
    state: str
    reason: str


def size_sentence(numbers: xr.Dataset) -> str:
    """ "48 members: lr (8) × momentum (6)"."""
    axes = " × ".join(f"{name} ({count(numbers.sizes[name])})" for name in axes_of(numbers))
    n = numbers["state"].size
    return f"{count(n)} member{'' if n == 1 else 's'}: {axes}"


def state_sentence(numbers: xr.Dataset) -> str:
    """ "45 whole, 2 diverged, 1 failed"; "all whole"."""
    counted = Counter(numbers["state"].values.reshape(-1).tolist())
    if set(counted) == {WHOLE}:
        return "all whole"
    return ", ".join(f"{count(counted[state])} {words}" for state, words in _WORDS.items() if counted[state])


def about_sentence(numbers: xr.Dataset) -> str:
    """Parameters and time, where they are known."""
    parts = []
    if "parameters" in numbers:
        known = numbers["parameters"].values[np.isfinite(numbers["parameters"].values)]
        if known.size:
            low, high = int(known.min()), int(known.max())
            parts.append(f"{count(low)}{'' if low == high else f' to {count(high)}'} parameters")
    if "wall_seconds" in numbers:
        known = numbers["wall_seconds"].values[np.isfinite(numbers["wall_seconds"].values)]
        if known.size:
            parts.append(
                f"{duration(float(known.sum()))} of computing, {number(float(known.mean()))} s a member"
            )
    return " · ".join(parts)


def troubles(numbers: xr.Dataset) -> list[Trouble]:
    """The members that are not whole and were run, those that failed first."""
    order = (FAILED, DIVERGED, STOPPED)
    flat = [numbers[name].values.reshape(-1).tolist() for name in ("member", "state")]
    reasons = numbers["reason"].values.reshape(-1).tolist() if "reason" in numbers else [""] * len(flat[0])
    found = [Trouble(*one) for one in zip(*flat, reasons, strict=True) if one[1] in order]
    return sorted(found, key=lambda one: order.index(one.state))


def without_page(numbers: xr.Dataset, pages: Collection[str]) -> str:
    """Which members with results have no page of their own; "" if all have one."""
    there = with_results(numbers)
    lacking = [member for member in there if member not in pages]
    if not lacking:
        return ""
    remedy = "`nm-ode report` of this page's folder with `--pages` draws them"
    if len(lacking) == len(there):
        return f"No member has a page of its own: {remedy}."
    told = ", ".join(lacking[:_NAMED]) + (
        f" and {count(len(lacking) - _NAMED)} more" if lacking[_NAMED:] else ""
    )
    return f"Without a page of their own: {told}; {remedy}."


def duration(seconds: float) -> str:
    """ "2 min 5 s"."""
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{count(hours)} h {minutes} min"
