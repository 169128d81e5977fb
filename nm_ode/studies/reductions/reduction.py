"""What a reduction says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import xarray as xr

from nm_ode.results.study import StudyRecord

Members: TypeAlias = Callable[[str], xr.DataTree | None]
"""The tree of a member by its name; None of one that has none."""


class Reduction(Protocol):
    """Makes datasets of a study from those of its members.

    Attributes:
        title: what it makes, for a reader: "order of each flow".
    """

    title: str

    def filled(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A member's case, as it would be read, with what the reduction needs where the case leaves it unsaid.

        A member is what its own case says, so that it can be run alone and is found again: what a reduction wants to be
        recorded is written there and nowhere else.
        """
        ...

    def mistake(self, record: StudyRecord, raw: Mapping[str, Any]) -> str | None:
        """Why nothing can be made of such a sweep, and the remedy; None if something can.

        Args:
            record: of the sweep.
            raw: the case as it was read.
        """
        ...

    def reduce(self, record: StudyRecord, members: Members, path: Path) -> Mapping[str, xr.Dataset]:
        """Group of the study → what goes there; of members that are not there, nothing does.

        Args:
            path: of the case file.
        """
        ...
