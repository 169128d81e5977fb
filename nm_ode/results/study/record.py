"""What a study of many members says of itself: what varies, who its members are, and why one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One dimension of a study.

    Attributes:
        name: of the dimension, "lr".
        values: key of the case file, "optimizer.lr" → its value at each place; several keys vary together, and the
            first gives the dimension its name and its coordinate.
    """

    name: str
    values: Mapping[str, tuple[Any, ...]]

    @property
    def size(self) -> int:
        return len(next(iter(self.values.values())))


@dataclass(frozen=True)
class Place:
    """Where a member is in its study.

    Attributes:
        name: of the member, "lr=0.1,seed=3": a folder's name on any system.
        index: along each axis.
        values: key of the case file → this member's value: what varies, and what a constraint makes of it.
    """

    name: str
    index: tuple[int, ...]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyRecord:
    """A study of many members.

    Attributes:
        name, title: of the case.
        case: the case as it was read, with `sweep`.
        case_file, case_text: the file's name and its text.
        axes: what varies, in the case's order.
        members: in the order of the grid, the last axis fastest.
    """

    name: str
    title: str
    case: Mapping[str, Any]
    case_file: str
    case_text: str
    axes: tuple[Axis, ...]
    members: tuple[Place, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    def flat(self, place: Place) -> int:
        """The member's index where all axes are laid out as one, the last fastest."""
        return int(np.ravel_multi_index(place.index, self.shape)) if self.axes else 0


FailureKind = Literal["error", "time", "memory", "killed", "disk"]


@dataclass(frozen=True)
class Failure:
    """Why a member has no results.

    Attributes:
        kind: it raised, ran past its time limit, out of memory, its process was killed, or the disk was full.
        sentence: for a reader.
        when: ISO 8601, UTC.
        case_text: the member's own case file, which can be run alone.
        log: what it said while it ran.
        traceback: of an error that nobody expected; else empty.
        versions: of Python and the packages.
    """

    kind: FailureKind
    sentence: str
    when: str
    case_text: str = ""
    log: str = ""
    traceback: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyTreeInfo:
    """The tree of a study of many members, as `open_study` gives it.

    Attributes:
        case: the case with all defaults, by key, with `sweep`.
        axes: the dimensions along which members lie.
        members: how many it has.
        whole_members: of how many the results are there.
        remarks: sentences on what of the members is not in the tree.
    """

    name: str
    title: str
    case: Mapping[str, Any]
    case_file: str
    case_text: str
    axes: tuple[str, ...]
    members: int
    whole_members: int
    remarks: tuple[str, ...] = ()
