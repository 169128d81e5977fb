"""A recording in a checkpoint: what was recorded, and what observers remember, beside the computation itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from nm_ode.errors import ArgumentError
from nm_ode.observers.memory import in_part
from nm_ode.observers.recording import Recording
from nm_ode.results.checkpoints import Checkpoint, CheckpointFile
from nm_ode.results.segments import Arrays, Segment

_PART = "observers/"


class RecordingFile(CheckpointFile):
    """The checkpoint file of a computation that is recorded.

    Args:
        checkpoint, what, belongs: as of `CheckpointFile`; the observers are added to what the file belongs to.
        recording: what is kept, and given back.

    Raises:
        ArgumentError: an observer that no checkpoint can keep.
    """

    def __init__(
        self, checkpoint: Checkpoint, what: str, belongs: Mapping[str, Any], recording: Recording
    ) -> None:
        super().__init__(checkpoint, what, {**belongs, "observers": recording.identity})
        self._recording = recording

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, what: str, belongs: Mapping[str, Any], recording: Recording
    ) -> RecordingFile | None:
        """The file; None, which is said, where an observer cannot be kept."""
        try:
            return cls(checkpoint, what, belongs, recording)
        except ArgumentError as error:
            checkpoint.say(f"{what}: no checkpoint is kept: {error}")
            return None

    def taken_up(self, is_own: Callable[[Segment], bool], otherwise: str) -> Iterator[Segment]:
        """The kept segments, whose rows the recording is given.

        Args:
            is_own: asked of the first; if it says no, nothing is used.
            otherwise: what is said then.
        """
        for i, segment in enumerate(self.segments()):
            if i == 0 and not is_own(segment):
                self.refuse(otherwise)
                return
            self._recording.take_rows(in_part(_PART, segment.rows))
            yield segment

    def restore(self, last: Segment) -> None:
        """Give the observers what they remembered."""
        self._recording.restore(last.facts["memory"], in_part(_PART, last.state))

    def save_all(
        self,
        facts: Mapping[str, Any],
        state: Arrays,
        more_rows: Callable[[bool], Arrays] = lambda _: {},
    ) -> bool:
        """`save` with what was recorded and what observers remember; False if nothing was kept.

        Args:
            more_rows: as `rows_from` of `save`, for series that are in no recording.
        """
        try:
            trees, remembered = self._recording.memory()
        except ArgumentError as error:
            self.give_up(str(error))
            return False

        def rows(all_of_them: bool) -> dict[str, np.ndarray]:
            return {**_named(self._recording.rows(all_of_them=all_of_them)), **more_rows(all_of_them)}

        return self.save({**facts, "memory": trees}, {**state, **_named(remembered)}, rows)


def fingerprint(vector: np.ndarray) -> list[float]:
    """Two numbers that another vector hardly has, whatever the rounding: a norm, and a weighed sum of sizes."""
    sizes = np.abs(np.asarray(vector, dtype=np.float64))
    return [float(np.linalg.norm(sizes)), float(sizes @ (np.arange(sizes.size) % 7 + 1.0))]


def _named(arrays: Arrays) -> dict[str, np.ndarray]:
    return {_PART + name: values for name, values in arrays.items()}
