"""A recording on its way to a store, and what a resumed one starts from."""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from nm_ode.errors import ArgumentError
from nm_ode.observers import Recording
from nm_ode.results import RunInfo, StoreError, annotate, encode_run, variable
from nm_ode.results.segments import Arrays
from nm_ode.results.stream import Rows
from nm_ode.results.stream.background import BackgroundWriter
from nm_ode.results.stream.writer import RunWriter

_log = logging.getLogger("nm_ode")

OnError: TypeAlias = Literal["stop recording", "raise"]
"""What a full disk does: it ends the recording, which is said, or raises in the loop."""

HANDED_ON = 2**20
"""Bytes of observations from which on they are handed to the writer."""
HANDED_STEPS = 256
EVERY = 10.0
"""Seconds from one commit to the next."""


@dataclass(frozen=True)
class Moment:
    """Where a loop is: all that changes from one step to the next.

    Attributes:
        steps: that were taken.
        time: flow time.
        skipped: steps that were not taken.
    """

    steps: int
    time: float
    skipped: int


class StoredRun:
    """Takes a recording's rows to a store, and what the run says of itself.

    Args:
        path: of the store.
        writer: of the store.
        recording: a streamed one.
        info: of the run; its grid is not read.
        share: flow time of a step with learning rate 1.
        on_error: see `OnError`.
    """

    def __init__(
        self,
        path: Path,
        writer: RunWriter,
        recording: Recording,
        facts: Mapping[str, Any],
        on_error: OnError,
        every: float = EVERY,
    ) -> None:
        self.path, self._recording, self._facts, self._on_error = path, recording, facts, on_error
        self._background, self._writer = BackgroundWriter(writer, every), writer
        self._lrs = array("d")
        self.stopped = False

    def after_step(self, lr: float, moment: Moment) -> None:
        """A step was taken, and observed.

        Raises:
            StoreError: the store cannot be written, and that is to be raised.
        """
        self._lrs.append(lr)
        if len(self._lrs) >= HANDED_STEPS or self._recording.waiting_bytes >= HANDED_ON:
            self._hand_on(moment)

    def save(self, moment: Moment) -> None:
        """Let all that was recorded outlast the process; raises as `after_step`."""
        self._hand_on(moment, commit=True)

    def end(
        self, moment: Moment, resume: Mapping[str, Any] | None, state: Arrays, ended_by: str = ""
    ) -> None:
        """Nothing more will come; raises as `after_step`.

        Args:
            resume, state: what a recorder of the same loop can go on from.
            ended_by: name of the exception that ended the loop.
        """
        self._facts = {**self._facts, "finished": True, "resume": resume, "ended_by": ended_by}
        try:
            self._hand_on(moment, state, commit=True, ending=True, before=moment.steps if ended_by else None)
        finally:
            self._background.close()

    def _hand_on(
        self,
        moment: Moment,
        state: Arrays | None = None,
        *,
        commit: bool = False,
        ending: bool = False,
        before: int | None = None,
    ) -> None:
        rows = self._recording.drain(before=before, ending=ending)
        lrs = np.array(self._lrs)
        told = variable("lr")
        rows.append(Rows("lr", ("step",), lambda: lrs, len(lrs), told.long_name, told.units))
        self._lrs = array("d")
        facts = {**self._facts, "steps": moment.steps, "constants": self._recording.constants}
        if self._background.error is None:
            attributes = {
                **facts["attributes"],
                "end_time": moment.time,
                "coordinates": " ".join(facts["coordinates"]),
            }
            constants = xr.Dataset({name: ((), value) for name, value in facts["constants"].items()})

            def finish() -> None:
                self._writer.finish(facts, state or {}, attributes, annotate(constants))

            self._background.put(
                rows, facts, state or {}, commit=commit, then=finish if ending else lambda: None
            )
        self._heed_error(moment)

    def _heed_error(self, moment: Moment) -> None:
        error = self._background.error
        if error is None or self.stopped:
            return
        self.stopped = True
        what = str(error)
        if isinstance(error, OSError):
            what = f"{error.filename or self.path}: {error.strerror or error}"
        if self._on_error == "raise":
            raise StoreError(
                f"the run cannot be recorded any more ({what}); what was written until then is in {self.path}"
            ) from error
        _log.error(
            "recording to %s stopped at step %d (%s); the training goes on without it, and what was written until "
            "then opens",
            self.path,
            moment.steps,
            what,
        )


def facts_of(info: RunInfo, recording: Recording, share: float) -> dict[str, Any]:
    """What a store says of a run from its beginning on."""
    return {
        "attributes": encode_run(info),
        "share": share,
        "coordinates": [*recording.growing_coordinates, *map(str, recording.coordinates.variables)],
        "steps": 0,
    }


def require_on_error(value: Any) -> OnError:
    """Raises ArgumentError for what is none."""
    if value not in ("stop recording", "raise"):
        raise ArgumentError(
            f'on_error must be "stop recording" or "raise"; {json.dumps(str(value))} was given'
        )
    found: OnError = value
    return found
