"""How often a process died of a member: who begins writes it down, and takes it back at the end."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from nm_ode.memory import in_words
from nm_ode.results.files import write_atomically

ALLOWED = 3
"""So many processes may die of one member in one batch; it may have been somebody else's fault."""

_NAME = "attempts.json"
_MUCH = 0.8  # of the memory that a process may have


@dataclass
class Attempts:
    """Of one member in one batch; whoever has the member's claim may use it.

    Attributes:
        deaths: of processes that began and did not come to an end.
        largest: bytes that the last of them had.
        limit: bytes that it might have; 0 for no limit.
    """

    folder: Path
    batch: str
    deaths: int = 0
    largest: int = 0
    limit: int = 0

    @classmethod
    def of(cls, folder: Path, batch: str) -> Attempts:
        """Those that there were; of other batches none count."""
        try:
            found = json.loads((folder / _NAME).read_text(encoding="ascii"))
            if found["batch"] == batch:
                return cls(folder, batch, int(found["begun"]), int(found["largest"]), int(found["limit"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return cls(folder, batch)

    def begin(self, limit: int | None) -> None:
        """One more; if its process dies it will have been a death.

        Raises:
            OSError: the folder cannot be written, or is full.
        """
        self.limit = limit or 0
        self.grown(0)

    def grown(self, largest: int) -> None:
        """The process has so much memory now.

        Raises:
            OSError: as `begin`.
        """
        told = {"batch": self.batch, "begun": self.deaths + 1, "largest": largest, "limit": self.limit}
        write_atomically(self.folder / _NAME, json.dumps({**told, "process": os.getpid()}).encode("ascii"))

    def end(self) -> None:
        """The process lives."""
        (self.folder / _NAME).unlink(missing_ok=True)

    @property
    def of_memory(self) -> bool:
        """Had the last that died nearly all that it might have?"""
        return bool(self.limit) and self.largest > _MUCH * self.limit

    def sentence(self) -> str:
        """Why it is not tried again in this batch."""
        times = f"its process was killed {self.deaths} times"
        if self.of_memory:
            return (
                f"{times}; the last had {in_words(self.largest)} of the {in_words(self.limit)} of memory that one "
                "may have: run it where there is more, or with fewer --workers"
            )
        had = f"; the last had {in_words(self.largest)} of memory" if self.largest else ""
        return f"{times}, from outside or by a crash{had}; its log may say more"
