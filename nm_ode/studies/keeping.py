"""Where what a group is computed from is kept meanwhile: a training, a solve and its check, each in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nm_ode.results import Checkpoint
from nm_ode.results.store import StoreWriter

_EVERY = 20.0  # seconds


class Checkpoints:
    """The checkpoints of one group; they are gone when it is written.

    Args:
        group: in the store.
        say: told what goes on from where.
        prefix: before each sentence.
    """

    def __init__(self, writer: StoreWriter, group: str, say: Callable[[str], None], prefix: str = "") -> None:
        self._writer, self._group = writer, group
        self._say, self._prefix = say, prefix
        self._made: list[Path] = []

    def __call__(self, part: str) -> Checkpoint:
        """Of a part of the group's computation."""
        path = self._writer.checkpoint(f"{self._group}/{part}")
        self._made.append(path)
        return Checkpoint(path, _EVERY, say=lambda sentence: self._say(self._prefix + sentence))

    def forget(self) -> None:
        """The group is written."""
        for path in self._made:
            path.unlink(missing_ok=True)
