"""What a long computation keeps of itself while it runs, so that one that is cut off goes on from there.

A checkpoint is one file of segments, each appended as a whole: the state of the moment, and of every series the rows
that have come since the segment before. So a long series is written once and not again at every save. A segment's
digest covers all segments before it: one that is torn, changed or of another file ends what is read, and the
computation goes on from the segment before. Where old states have come to fill more than what is in use, the file is
written anew and put in the old one's place. Nothing in it is a pickle.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from nm_ode.arguments import as_number
from nm_ode.errors import ArgumentError
from nm_ode.results.files import sync_folder
from nm_ode.results.segments import Arrays, Segment, read_segment, size_of, write_segment

_log = logging.getLogger("nm_ode")
_MAGIC = b"nm_ode checkpoint 1\n"
_SHARE = 0.02  # of the time that writing may take
_ENDING = 1.0  # seconds of work that are worth a save when a computation ends or is broken off
_GARBAGE = 2**24  # bytes of old states that are never worth a rewrite


@dataclass(frozen=True)
class Checkpoint:
    """Where a training or a solve keeps how far it is.

    One that is cut off in any way goes on from there when it is started again in the same way; a file that belongs to
    another computation is not used. The file is left when the computation is done: then starting it again gives its
    result at once.

    Args:
        path: of the file.
        every: seconds from one save to the next. Writing takes no more than 2 % of the time: where one save takes
            longer than every/50, they are further apart. 0: at every opportunity.
        say: called with a sentence if what was kept is used, or cannot be; written to the log "nm_ode" if not given.

    Raises:
        ArgumentError: a negative time, or a path that is a folder or in no folder.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> kept = nm_ode.Checkpoint("run.ckpt", every=0, say=print)
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.05), steps=10, checkpoint=kept)
        >>> again = nm_ode.train(problem, nm_ode.SGD(lr=0.05), steps=10, checkpoint=kept)
        training: goes on from step 10 of 10
    """

    path: Path
    every: float = 30.0
    say: Callable[[str], None] = field(default=_log.info, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", as_number(self.every, "a checkpoint's every"))
        if self.every < 0:
            raise ArgumentError(f"a checkpoint's every must be 0 or more seconds; {self.every} was given")
        if not callable(self.say):
            raise ArgumentError("a checkpoint's say must be a function of a sentence, such as print")
        if not isinstance(self.path, str | os.PathLike):
            raise ArgumentError(f"a checkpoint is the path of a file; {type(self.path).__name__} was given")
        object.__setattr__(self, "path", Path(self.path))
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            what = "it is a folder" if self.path.is_dir() else "its folder is not there"
            raise ArgumentError(f"a checkpoint is the path of a file; {self.path}: {what}")


def as_checkpoint(given: Checkpoint | str | os.PathLike[str] | None) -> Checkpoint | None:
    """What a caller gives: a path, a Checkpoint, or nothing.

    Raises:
        ArgumentError: something else, or no path of a file.
    """
    return given if given is None or isinstance(given, Checkpoint) else Checkpoint(given)  # type: ignore[arg-type]


class CheckpointFile:
    """The file of one computation.

    Args:
        checkpoint: where, and how often.
        what: "training", for sentences.
        belongs: what fixes the computation, as JSON has it; kept segments of any other are not used.
    """

    def __init__(self, checkpoint: Checkpoint, what: str, belongs: Mapping[str, Any]) -> None:
        self._path, self._say, self._what = checkpoint.path, checkpoint.say, what
        self._every = checkpoint.every
        self._belongs = json.loads(json.dumps(belongs))
        self._usable = True
        self._forget()
        self._cost = 0.0
        self._saved_at = time.monotonic()

    def _forget(self) -> None:
        self._end, self._chain = 0, b""  # of the last segment that is whole
        self._rows, self._state = 0, 0  # bytes: of all rows, and of the last state

    def segments(self) -> Iterator[Segment]:
        """What was kept of this computation, in order; nothing if there is no such file."""
        self._new_path.unlink(missing_ok=True)
        try:
            with self._path.open("rb") as file:
                yield from self._whole_segments(file, os.fstat(file.fileno()).st_size)
        except FileNotFoundError:
            return
        except OSError as error:
            self.give_up(f"{self._path} cannot be read ({error.strerror})")

    def _whole_segments(self, file: IO[bytes], size: int) -> Iterator[Segment]:
        start = file.read(len(_MAGIC))
        if not _MAGIC.startswith(start) or (len(start) < len(_MAGIC) and size > len(start)):
            self.give_up(f"{self._path} is no checkpoint of nm_ode and is left as it is")
            return
        while (read := read_segment(file, size, self._chain)) is not None:
            header, segment, chain = read
            if not self._end:
                difference = _difference(header.get("belongs"), self._belongs)
                if difference:
                    self._say(
                        f"{self._what}: {self._path} is of another one (of other {difference}): not used"
                    )
                    return
            self._end, self._chain = file.tell(), chain
            self._rows, self._state = self._rows + size_of(segment.rows), size_of(segment.state)
            yield segment
        if self._end < size and size > len(_MAGIC):
            self._say(
                f"{self._what}: the last part of {self._path} is damaged or was not written to its end: not used"
            )

    def say(self, what: str) -> None:
        """A sentence about the computation."""
        self._say(f"{self._what}: {what}")

    def refuse(self, why: str) -> None:
        """What was read is not to be used after all: the next save begins anew."""
        self._forget()
        self._say(f"{self._what}: {why}: it starts from the beginning")

    def give_up(self, why: str) -> None:
        """Nothing is kept from here on."""
        self._usable = False
        self._say(f"{self._what}: no checkpoint is kept: {why}")

    def due(self, *, ending: bool = False) -> bool:
        """Is it time for a save?

        Args:
            ending: the computation is done or broken off: then a second's work is worth it.
        """
        if not self._usable:
            return False
        since = time.monotonic() - self._saved_at
        wanted = (
            min(self._every, _ENDING)
            if ending
            else max(self._every, self._cost / _SHARE if self._every else 0)
        )
        return since >= wanted

    def save(self, facts: Mapping[str, Any], state: Arrays, rows_from: Callable[[bool], Arrays]) -> bool:
        """Append a segment; False if it could not be written, which is said, and the next save tries again.

        Args:
            rows_from: gives what the series have since the last save; all that they have if it is given True.
        """
        began = time.monotonic()
        try:
            size = self._path.stat().st_size if self._end else 0
            fresh = not self._end or size < self._end
            if fresh or size - self._rows - self._state > max(self._rows + self._state, _GARBAGE):
                self._rewrite(facts, state, rows_from(True), fresh)
            else:
                self._append(facts, state, rows_from(False))
        except OSError as error:
            self._end = 0  # the rows that were to be written are in no file: the next save writes all
            self._say(
                f"{self._what}: the checkpoint {self._path} could not be written ({error.strerror or error})"
            )
            return False
        finally:
            self._saved_at = time.monotonic()
            self._cost = self._saved_at - began
        return True

    def _append(self, facts: Mapping[str, Any], state: Arrays, rows: Arrays) -> None:
        with self._path.open("r+b") as file:
            file.seek(self._end)
            try:
                chain = write_segment(file, {"facts": facts}, state, rows, self._chain)
                file.truncate()
                _sync(file)
            except BaseException:
                file.truncate(self._end)
                raise
            self._note(file.tell(), chain, self._rows + size_of(rows), state)

    def _rewrite(self, facts: Mapping[str, Any], state: Arrays, rows: Arrays, fresh: bool) -> None:
        header = {"belongs": self._belongs, "facts": facts}
        try:
            with self._new_path.open("wb") as file:
                file.write(_MAGIC)
                chain = write_segment(file, header, state, rows, b"")
                _sync(file)
                end = file.tell()
            os.replace(self._new_path, self._path)
        except BaseException:
            self._new_path.unlink(missing_ok=True)
            raise
        sync_folder(self._path.absolute().parent)
        self._note(end, chain, size_of(rows), state)

    def _note(self, end: int, chain: bytes, rows: int, state: Arrays) -> None:
        self._end, self._chain, self._rows, self._state = end, chain, rows, size_of(state)

    @property
    def _new_path(self) -> Path:
        return self._path.with_name(f".{self._path.name}.new")


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _difference(there: Any, here: Mapping[str, Any]) -> str:
    """What differs, in words: "lr, steps"."""
    if not isinstance(there, Mapping):
        return "kind"
    return ", ".join(key for key in {**here, **there} if there.get(key) != here.get(key))
