"""A recording on its way to a store, and what a resumed one starts from."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from torch import Tensor

from nm_ode.errors import ArgumentError
from nm_ode.observers import Recording
from nm_ode.recorder.going_on import (
    Place,
    Resume,
    place_asked_for,
    require_same_run,
    require_same_theta,
)
from nm_ode.results import RunInfo, StoreError, annotate, encode_run, variable
from nm_ode.results.segments import Arrays
from nm_ode.results.stream import Rows
from nm_ode.results.stream.background import BackgroundWriter
from nm_ode.results.stream.journal import Ledger
from nm_ode.results.stream.writer import RunWriter

_log = logging.getLogger("nm_ode")

OnError: TypeAlias = Literal["stop recording", "raise"]
"""What a full disk does: it ends the recording, which is said, or raises in the loop."""

HANDED_ON = 2**20
"""Bytes of observations from which on they are handed to the writer."""
HANDED_STEPS = 64
EVERY = 10.0
"""Seconds from one commit to the next, at most: a kill costs no more than what came in this time."""


class StoredRun:
    """Takes a recording's rows to a store, and what the run says of itself.

    Args:
        path: of the store.
        writer: of the store.
        recording: a streamed one.
        facts: what the run says of itself.
        on_error: see `OnError`.
    """

    def __init__(
        self,
        path: Path,
        writer: RunWriter,
        recording: Recording,
        facts: Mapping[str, Any],
        on_error: OnError,
    ) -> None:
        self.path, self._recording, self._facts, self._on_error = path, recording, facts, on_error
        self._background, self._writer = BackgroundWriter(writer, EVERY), writer
        self._lrs, self._handed_at = array("d"), time.monotonic()
        self.stopped = False

    @classmethod
    def begin(
        cls,
        path: Path,
        recording: Recording,
        facts: Mapping[str, Any],
        on_error: OnError,
        resume: Resume,
        parameters: list[Tensor],
    ) -> tuple[StoredRun, Place]:
        """A recording to a new store, or to one that is gone on with, and where it begins.

        Raises:
            StoreError: there is something already; or what is there is not gone on with by this loop.
        """
        place = Place()
        if resume is False:
            with _explained(path):
                writer = RunWriter.create(path, recording.coordinates, facts)
            return cls(path, writer, recording, facts, on_error), place
        used: dict[str, Any] = {}

        def checked(ledger: Ledger) -> tuple[int, Mapping[str, Any]]:
            nonlocal place
            require_same_run(path, ledger, recording, facts["attributes"])
            place = place_asked_for(resume, path, ledger)
            require_same_theta(path, place, parameters)
            ended = {"finished": False, "resume": None, "ended_by": "", "steps": place.steps}
            used.update({**ledger.facts, **ended})
            return place.steps, used

        with _explained(path):
            writer = RunWriter.resume(path, checked)
        if place.trees:
            recording.restore(place.trees, place.arrays)
        return cls(path, writer, recording, used, on_error), place

    def after_step(self, lr: float, place: Place) -> None:
        """A step was taken, and observed.

        Raises:
            StoreError: the store cannot be written, and that is to be raised.
        """
        self._lrs.append(lr)
        if (
            len(self._lrs) >= HANDED_STEPS
            or self._recording.waiting_bytes >= HANDED_ON
            or time.monotonic() - self._handed_at >= EVERY
        ):
            self._hand_on(place)

    def save(self, place: Place) -> None:
        """Let all that was recorded outlast the process; raises as `after_step`."""
        self._hand_on(place, commit=True)

    def end(self, place: Place, no_resume: str = "", ended_by: str = "") -> None:
        """Nothing more will come; raises as `after_step`.

        Args:
            place: with what the observers remember, so that the run can be gone on with.
            no_resume: why it cannot.
            ended_by: name of the exception that ended the loop.
        """
        self._facts = {
            **self._facts,
            "finished": True,
            "resume": None if no_resume else place.facts,
            "no_resume": no_resume,
            "ended_by": ended_by,
        }
        try:
            if not self.stopped:
                before = place.steps if ended_by else None
                self._hand_on(place, place.arrays, commit=True, ending=True, before=before)
        finally:
            self._background.close()

    def _hand_on(
        self,
        place: Place,
        state: Arrays | None = None,
        *,
        commit: bool = False,
        ending: bool = False,
        before: int | None = None,
    ) -> None:
        self._handed_at = time.monotonic()
        rows = self._recording.drain(before=before, ending=ending)
        lrs = np.array(self._lrs)
        told = variable("lr")
        rows.append(Rows("lr", ("step",), lambda: lrs, len(lrs), told.long_name, told.units))
        self._lrs = array("d")
        facts = {**self._facts, "steps": place.steps, "constants": self._recording.constants}
        if self._background.error is None:
            attributes = {
                **facts["attributes"],
                "end_time": place.time,
                "coordinates": " ".join(facts["coordinates"]),
            }
            constants = xr.Dataset({name: ((), value) for name, value in facts["constants"].items()})

            def finish() -> None:
                self._writer.finish(facts, state or {}, attributes, annotate(constants))

            self._background.put(
                rows, facts, state or {}, commit=commit, then=finish if ending else lambda: None
            )
        self._heed_error(place)

    def _heed_error(self, place: Place) -> None:
        error = self._background.error
        if error is None or self.stopped:
            return
        self.stopped = True
        what = str(error)
        if isinstance(error, OSError):
            what = f"{error.filename or self.path}: {error.strerror or error}"
        if self._on_error == "raise" and not self._facts.get(
            "ended_by"
        ):  # the loop's own error is the one to see
            raise StoreError(
                f"the run cannot be recorded any more ({what}); what was written until then is in {self.path}"
            ) from error
        _log.error(
            "recording to %s stopped at step %d (%s); the training goes on without it, and what was written until "
            "then opens",
            self.path,
            place.steps,
            what,
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path} cannot be written ({error.strerror or error})") from None


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
