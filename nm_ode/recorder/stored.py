"""A recording on its way to a store."""

from __future__ import annotations

import contextlib
import logging
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from torch import Tensor

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.observers import Recording
from nm_ode.recorder.going_on import (
    OF_THE_START,
    Place,
    Resume,
    place_asked_for,
    require_same_run,
    require_same_theta,
)
from nm_ode.results import StoreError, annotate, variable
from nm_ode.results.stream import Rows
from nm_ode.results.stream.background import BackgroundWriter
from nm_ode.results.stream.journal import Ledger
from nm_ode.results.stream.writer import RunWriter

_log = logging.getLogger("nm_ode")

OnError: TypeAlias = Literal["stop recording", "raise"]
"""What a full disk does: it ends the recording, which is said, or raises in the loop."""

Attributes: TypeAlias = Callable[[], Mapping[str, Any]]

HANDED_ON = 2**20
"""Bytes of observations from which on they are handed to the writer."""
HANDED_STEPS = 64
EVERY = 10.0
"""Seconds from one commit to the next, at most: a kill costs no more than what came in this time."""


class StoredRun:
    """Takes a recording's rows to a store, and what the run says of itself. Made by `begin`.

    Attributes:
        path: of the store.
        stopped: why nothing is written any more; empty as long as all goes well.
    """

    def __init__(
        self,
        path: Path,
        writer: RunWriter,
        recording: Recording,
        attributes: Attributes,
        facts: Mapping[str, Any],
        on_error: OnError,
    ) -> None:
        self.path, self._recording, self._attributes = path, recording, attributes
        self._facts, self._on_error = dict(facts), on_error
        self._writer, self._background = writer, BackgroundWriter(writer, EVERY)
        self._lrs, self._handed_at = array("d"), time.monotonic()
        self._fixed: dict[str, Any] = {}
        self.stopped = ""

    @classmethod
    def begin(
        cls,
        path: Path,
        recording: Recording,
        attributes: Attributes,
        share: float,
        parameters: Sequence[Tensor],
        *,
        on_error: OnError,
        resume: Resume,
    ) -> tuple[StoredRun, Place]:
        """A recording to a new store, or to one that is gone on with, and where it begins.

        Args:
            recording: a streamed one; it is given what its observers remembered.
            attributes: gives those of the run, as of the moment.
            share: flow time of a step with learning rate 1.

        Raises:
            StoreError: there is something already; or what is there is not gone on with by this loop.
        """
        place = Place()
        facts: dict[str, Any] = {
            "attributes": attributes(),
            "share": share,
            "coordinates": [*recording.growing_coordinates, *map(str, recording.coordinates.variables)],
            "steps": 0,
            "start": {},
        }

        def checked(ledger: Ledger) -> tuple[int, Mapping[str, Any]]:
            nonlocal place
            require_same_run(path, ledger, recording, facts["attributes"])
            place = place_asked_for(resume, path, ledger)
            require_same_theta(path, place, parameters)
            there = ledger.facts["attributes"]
            # What was taken to be so of the optimiser may rest on the steps before.
            start = {name: there[name] for name in OF_THE_START} if place.steps else {}
            facts.update(steps=place.steps, start=start, attributes={**facts["attributes"], **start})
            return place.steps, facts

        with _explained(path):
            if resume is False:
                writer = RunWriter.create(path, recording.coordinates, facts)
            else:
                writer = RunWriter.resume(path, checked)
        if place.trees:
            recording.restore(place.trees, place.arrays)
        return cls(path, writer, recording, attributes, facts, on_error), place

    def keep(self, name: str, values: Tensor) -> None:
        """A vector of the optimiser's state, which goes with the next rows."""
        self._fixed[name] = ("state_index", values.cpu().numpy())

    def after_step(self, lr: float, steps: int) -> None:
        """A step was taken, and observed.

        Args:
            steps: how many there are now.
        """
        self._lrs.append(lr)
        if (
            len(self._lrs) >= HANDED_STEPS
            or self._recording.waiting_bytes >= HANDED_ON
            or time.monotonic() - self._handed_at >= EVERY
        ):
            self._hand_on(steps)

    def save(self, steps: int) -> None:
        """Let all that was recorded outlast the process."""
        self._hand_on(steps, commit=True)

    def end(self, place: Place | ArgumentError, steps: int, *, torn: bool) -> None:
        """Nothing more will come.

        Args:
            place: from which the run can be gone on with, or why it cannot.
            torn: was a step seen in part?
        """
        arrays: Mapping[str, np.ndarray] = {}
        self._facts |= {"finished": True, "resume": None, "no_resume": str(place)}
        if isinstance(place, Place):
            self._facts["resume"], arrays = place.facts, place.arrays
        try:
            if not self.stopped:
                self._hand_on(steps, arrays, commit=True, ending=True, before=steps if torn else None)
        finally:
            self._background.close()

    def tell(self, *, quietly: bool = False) -> None:
        """Say once that nothing is written any more, or raise.

        Args:
            quietly: never raise: another error is on its way.

        Raises:
            StoreError: if that is to be raised.
        """
        if self._on_error == "raise" and not quietly:
            raise StoreError(f"{self.stopped}; what was written until then is in {self.path}")
        _log.error("%s; the training goes on without it, and what was written until then opens", self.stopped)

    def _hand_on(
        self,
        steps: int,
        state: Mapping[str, np.ndarray] | None = None,
        *,
        commit: bool = False,
        ending: bool = False,
        before: int | None = None,
    ) -> None:
        self._handed_at = time.monotonic()
        rows = self._recording.drain(before=before, ending=ending)
        rows.append(_rows_of_lr(np.array(self._lrs)))
        self._lrs = array("d")
        attributes = {**self._attributes(), **self._facts["start"]}
        constants = self._recording.constants
        facts = {**self._facts, "attributes": attributes, "steps": steps, "constants": constants}
        kept = state or {}
        fixed, self._fixed = self._fixed, {}

        def finish() -> None:
            told = {**attributes, "coordinates": " ".join(facts["coordinates"])}
            scalars = annotate(xr.Dataset({name: ((), value) for name, value in constants.items()}))
            self._writer.finish(facts, kept, told, scalars)

        if self._background.error is None:
            self._background.put(
                rows,
                facts,
                kept,
                fixed=annotate(xr.Dataset(fixed)) if fixed else None,
                commit=commit,
                then=finish if ending else None,
            )
        self._look_for_error(steps)

    def _look_for_error(self, steps: int) -> None:
        error = self._background.error
        if error is not None and not self.stopped:
            what = str(error)
            if isinstance(error, OSError):
                what = f"{error.filename or self.path}: {error.strerror or error}"
            self.stopped = f"recording to {self.path} stopped at step {steps} ({what})"


def require_on_error(value: Any) -> OnError:
    """Raises ArgumentError for what is none."""
    if value not in ("stop recording", "raise"):
        raise ArgumentError(f'on_error must be "stop recording" or "raise"; {said(value)} was given')
    found: OnError = value
    return found


def _rows_of_lr(lrs: np.ndarray) -> Rows:
    told = variable("lr")
    return Rows("lr", ("step",), lambda: lrs, len(lrs), told.long_name, told.units)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path} cannot be written ({error.strerror or error})") from None
