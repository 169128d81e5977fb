"""How members that differ in length or in labels lie on the dimensions that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nm_ode.results.study.lazy import Places

SAMPLE = "sample"
"""The dimension of a flow's samples whose times differ from member to member."""
_ENDED = "shorter members end with NaN"
_TOLERANCE = 1e-9
"""Times that are closer than this, relative to the longest, are one: sums of steps round."""


@dataclass(frozen=True)
class Labels:
    """What one member's dimension has: its length, and the values along it if it has a coordinate.

    Attributes:
        values: of the coordinate of the dimension's name.
        times: of its coordinate of flow time.
    """

    size: int
    values: npt.NDArray[Any] | None = None
    times: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Shared:
    """A dimension of the study.

    Attributes:
        name: of the dimension.
        index: its coordinate; None if it has none.
        places: member → where each entry is in it, −1 for none; None where they are the same.
        same: has every member all of it?
        how: how members were put on it, for a reader; empty where they were the same.
    """

    name: str
    size: int
    index: npt.NDArray[Any] | None
    places: Mapping[int, Places | None]
    same: bool
    how: str = field(default="")


def aligned(
    dim: str,
    labels: Mapping[int, Labels],
    time: str | None,
    by_time: bool,
    given: npt.NDArray[Any] | None = None,
) -> Shared:
    """One dimension of several members.

    Args:
        labels: by member.
        time: name of the dimension's coordinate of flow time.
        by_time: put members on the flow times that they share, where there are any.
        given: the index that it has in the group above.
    """
    if by_time and time is not None:
        found = _on_common_times(time, labels)
        if found is not None:
            return found
    if all(found.values is None for found in labels.values()):
        sizes = {found.size for found in labels.values()}
        size, same = max(sizes), len(sizes) == 1
        how = "" if same else f"by position; {_ENDED}"
        return Shared(dim, size, None, dict.fromkeys(labels), same, how)
    values = [found.values for found in labels.values() if found.values is not None]
    longest = max(values, key=len)
    if given is None and len(values) == len(labels) and all(_begins(longest, other) for other in values):
        same = all(len(other) == len(longest) for other in values)
        return Shared(dim, len(longest), longest, dict.fromkeys(labels), same, "" if same else _ENDED)
    if given is None and values[0].dtype.kind == "f":
        size = max(found.size for found in labels.values())
        how = f"by position, for {dim} differs from member to member; {_ENDED}"
        same = len({found.size for found in labels.values()}) == 1
        return Shared(
            SAMPLE if dim == "time" else f"{dim}_{SAMPLE}", size, None, dict.fromkeys(labels), same, how
        )
    index = _union(values) if given is None else given
    return _by_label(dim, index, labels)


def _by_label(dim: str, index: npt.NDArray[Any], labels: Mapping[int, Labels]) -> Shared:
    position = {value: i for i, value in enumerate(index.tolist())}
    cache: dict[bytes | tuple[Any, ...], Places | None] = {}
    places: dict[int, Places | None] = {}
    for member, found in labels.items():
        theirs = tuple(found.values.tolist()) if found.values is not None else tuple(range(found.size))
        if theirs not in cache:
            where = np.full(len(index), -1, dtype=np.int64)
            for i, value in enumerate(theirs):
                if value in position:
                    where[position[value]] = i
            cache[theirs] = None if np.array_equal(where, np.arange(len(index))) else where
        places[member] = cache[theirs]
    same = all(found is None for found in places.values())
    return Shared(
        dim, len(index), index, places, same, "" if same else "by label; NaN where a member has not got it"
    )


def _union(values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Numbers in order; names as they first come."""
    if values[0].dtype.kind in "iu":
        return np.unique(np.concatenate(values))
    names = dict.fromkeys(value for found in values for value in found.tolist())
    return np.array(list(names), dtype=values[0].dtype)


def _on_common_times(time: str, labels: Mapping[int, Labels]) -> Shared | None:
    """At the times that every member has which got so far; None if they share no more than the start."""
    series = {member: found.times for member, found in labels.items() if found.times is not None}
    there = [times for times in series.values() if len(times)]
    if not there or len(series) < len(labels) or not all(_increases(times) for times in there):
        return None
    tolerance = _TOLERANCE * max(float(times[-1]) for times in there)
    # By what they are, not by member: seeds share their times.
    distinct = {times.tobytes(): times for times in series.values()}
    common = _shared_times([times for times in distinct.values() if len(times)], tolerance)
    if len(common) < 2:
        return None
    where = {key: _nearest(times, common, tolerance) for key, times in distinct.items()}
    identity = np.arange(len(common))
    places: dict[int, Places | None] = {}
    for member, times in series.items():
        found = where[times.tobytes()]
        whole = len(times) == len(common) and np.array_equal(found, identity)
        places[member] = None if whole else found
    same = all(found is None or bool((found >= 0).all()) for found in places.values())
    all_of_it = all(found is None for found in places.values())
    how = "" if all_of_it else "at the flow times that all members share; NaN from where a member ended"
    return Shared(time, len(common), common, places, same, how)


def _shared_times(series: list[npt.NDArray[np.float64]], tolerance: float) -> npt.NDArray[np.float64]:
    longest = max(series, key=lambda times: float(times[-1]))
    kept = np.ones(len(longest), dtype=bool)
    for times in series:
        # A step goes on until the next: the last of a coarse run is no reason to keep a fine one's last steps.
        end = 2 * times[-1] - times[-2] if len(times) > 1 else times[-1] + tolerance
        got_so_far = longest < end - tolerance
        kept &= (_nearest(times, longest, tolerance) >= 0) | ~got_so_far
    return longest[kept]


def _nearest(times: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64], tolerance: float) -> Places:
    if not len(times):
        return np.full(len(wanted), -1, dtype=np.int64)
    after = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    before = np.clip(after - 1, 0, len(times) - 1)
    nearest = np.where(np.abs(times[after] - wanted) < np.abs(times[before] - wanted), after, before)
    return np.where(np.abs(times[nearest] - wanted) <= tolerance, nearest, -1)


def _increases(times: npt.NDArray[np.float64]) -> bool:
    return bool(np.isfinite(times).all() and (np.diff(times) > 0).all())


def _begins(longest: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Is it the first of these labels? Times of one sum by another step differ by roundings."""
    if longest is other:
        return True
    first = longest[: len(other)]
    if longest.dtype.kind == "f" and other.dtype.kind == "f":
        scale = float(np.max(np.abs(longest), initial=0.0, where=np.isfinite(longest)))
        return bool(np.allclose(first, other, rtol=0, atol=_TOLERANCE * scale, equal_nan=True))
    return bool(np.all(first == other))


def time_of(dim: str, names: Iterable[str]) -> str | None:
    """The name of a dimension's coordinate of flow time: "time", of `saved_step` "saved_time"."""
    found = "time" if dim in ("time", "step") else f"{dim.removesuffix('_step')}_time"
    return found if dim == "time" or (dim.endswith("step") and found in names) else None
