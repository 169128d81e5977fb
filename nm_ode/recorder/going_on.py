"""Going on with a recorded run: what a loop keeps in its own checkpoint, and what is asked before rows are added."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.observers import Recording
from nm_ode.recorder.taken import Taken
from nm_ode.results import StoreError
from nm_ode.results.segments import Arrays
from nm_ode.results.stream.journal import Ledger
from nm_ode.results.stream.reader import stored_dataset

Resume: TypeAlias = bool | Mapping[str, Any]

_VERSION = 2
_MAY_DIFFER = {"lr", "initial_lr"}
OF_THE_START = ("hyperparameters", "optimizer_text", "time_per_step", "warm_start")
"""Attributes that are those of the run's first steps."""
_NOT_COMPARED = {*OF_THE_START, "end_time", "status", "message", "beyond_laws", "remarks"}


@dataclass(frozen=True)
class Place:
    """Where a loop is, and what its observers remember there.

    Attributes:
        steps, time, skipped: steps taken, flow time, steps not taken.
        theta: digest of the parameters; "" where nobody knows.
        beyond_laws: as of `RunInfo`, of these steps, as text.
        trees, arrays: as `Recording.memory` gives them; no trees: the observers remember nothing.
    """

    steps: int = 0
    time: float = 0.0
    skipped: int = 0
    theta: str = ""
    beyond_laws: str = ""
    trees: list[Any] = field(default_factory=list)
    arrays: Arrays = field(default_factory=dict)

    @classmethod
    def now(
        cls, recording: Recording, theta: Sequence[Tensor], taken: Taken, skipped: int, beyond_laws: str
    ) -> Place | ArgumentError:
        """Where a recording is; an error if an observer remembers what cannot be kept."""
        try:
            trees, arrays = recording.memory()
        except ArgumentError as error:
            return error
        return cls(taken.steps, taken.time, skipped, digest_of(theta), beyond_laws, trees, arrays)

    @property
    def facts(self) -> dict[str, Any]:
        """All but the arrays, as JSON has it."""
        names = [one.name for one in fields(self) if one.name != "arrays"]
        return {"version": _VERSION, **{name: getattr(self, name) for name in names}}

    @property
    def state_dict(self) -> dict[str, Any]:
        """As `torch.save` keeps it, and `torch.load` gives it with `weights_only=True`."""
        arrays = {name: torch.from_numpy(np.array(values)) for name, values in self.arrays.items()}
        return {**self.facts, "arrays": arrays}

    @classmethod
    def of(cls, found: Mapping[str, Any], arrays: Arrays) -> Place:
        """What `facts` were, with their arrays; raises ArgumentError if they are of no place."""
        if "stopped" in found:
            raise ArgumentError(
                f"resume is of a loop whose recording had stopped at step {found['stopped']}, as was said then: what "
                "followed is not recorded, so record the rest to another path"
            )
        if found.get("version") != _VERSION:
            raise ArgumentError(
                f"resume is a recorder.state_dict() of another version: {found.get('version')}"
            )
        return cls(
            **{name: found[name] for name in cls.__dataclass_fields__ if name != "arrays"}, arrays=arrays
        )


def stopped_at(steps: int) -> dict[str, Any]:
    """The state of a recorder that could not write any more: a loop does not go on with its run."""
    return {"version": _VERSION, "stopped": steps}


def place_asked_for(resume: Resume, path: Path, ledger: Ledger) -> Place:
    """Where the loop goes on, by what its user says.

    Raises:
        ArgumentError: what is no place.
        StoreError: the store does not say where it ended.
    """
    if isinstance(resume, Mapping):
        try:
            arrays = {name: np.asarray(values) for name, values in resume.get("arrays", {}).items()}
            return Place.of(resume, arrays)
        except (KeyError, TypeError, AttributeError) as error:
            raise ArgumentError(
                f"resume is no recorder.state_dict(): {type(error).__name__}: {error}"
            ) from None
    kept = ledger.facts.get("resume") if ledger.facts.get("finished") else None
    if kept is None:
        why = ledger.facts.get("no_resume") or "its recording was cut off"
        raise StoreError(
            f"{path} does not say where it can be gone on with ({why}): keep recorder.state_dict() in the loop's own "
            "checkpoints, and give resume=that"
        )
    return Place.of(kept, ledger.state)


def require_same_theta(path: Path, place: Place, parameters: Sequence[Tensor]) -> None:
    """Raises StoreError unless the loop has the parameters that it had there."""
    if place.theta and place.theta != digest_of(parameters):
        raise StoreError(
            f"the model's parameters are not those after step {place.steps}, where {path} is gone on with: load the "
            "loop's own checkpoint of that moment into the model before the recorder begins"
        )


def require_same_run(path: Path, ledger: Ledger, recording: Recording, attributes: Mapping[str, Any]) -> None:
    """Raises StoreError unless rows of this recording go on with those of the store."""
    there = ledger.facts["attributes"]
    for name in sorted({*there, *attributes} - _NOT_COMPARED):
        if there.get(name) != attributes.get(name):
            raise _other(path, name)
    if _without_lr(there) != _without_lr(attributes):
        raise _other(path, "the optimiser's hyperparameters")
    coordinates, fixed = recording.coordinates, stored_dataset(path, ledger)
    for name, values in coordinates.variables.items():
        if name not in fixed or fixed[name].values.tolist() != values.values.tolist():
            raise _other(path, f"the coordinate {name!r}")
    wanted: dict[str, set[str]] = {}
    for name, dim in recording.variables.items():
        wanted.setdefault(dim, set()).add(name)
    found: dict[str, set[str]] = {}
    for name, array in ledger.arrays.items():
        found.setdefault(array.dim, set()).add(name)
    for dim, names in found.items():
        differ = names ^ (wanted.get(dim, set()) | ({"lr"} if dim == "step" else set()))
        if differ:
            raise _other(path, f"what is observed: {', '.join(sorted(differ))}")


def digest_of(parameters: Sequence[Tensor]) -> str:
    """Of the bits of tensors."""
    found = hashlib.blake2b(digest_size=16)
    for parameter in parameters:
        flat = parameter.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def require_resume(value: Any, store: Path | None) -> Resume:
    """Raises ArgumentError for what names no place, or one in no store."""
    if isinstance(value, bool | Mapping):
        if value is not False and store is None:
            raise ArgumentError("resume goes on with a run that is in a store: give its path as store")
        return value
    raise ArgumentError(
        "resume must be a recorder.state_dict(), which the loop keeps in its own checkpoint, or True for where the "
        f"store was closed; {said(value)} was given"
    )


def _without_lr(attributes: Mapping[str, Any]) -> Any:
    kept = attributes["hyperparameters"]
    values = json.loads(kept) if isinstance(kept, str) else dict(kept)
    return {name: value for name, value in values.items() if name not in _MAY_DIFFER}


def _other(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} holds another run (it differs in {what}): record to another path")
