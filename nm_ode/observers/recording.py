"""Observers at work along one run or flow, and the dataset that becomes of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.observers.base import SAVED_STEP, STEP, Context, Observer, View
from nm_ode.observers.memory import in_part, unpacked
from nm_ode.observers.track import Track, as_steps, time_of
from nm_ode.results import Variable, annotate
from nm_ode.results.stream import Rows

_TAKEN = ("lr", "initial_state", "final_state", "state_index", "solver_error")
"""What a run or a solution adds to what was observed."""


def require_observers(observe: Any) -> list[Observer]:
    """What a caller gives as `observe`.

    Raises:
        ArgumentError: no sequence of observers.
    """
    if isinstance(observe, Observer):
        raise ArgumentError(f"observe must be a sequence of observers: write [{type(observe).__name__}(…)]")
    if observe is None:
        return []
    if isinstance(observe, str | dict) or not isinstance(observe, Iterable):
        raise ArgumentError(f"observe must be a sequence of observers; {said(observe)} was given")
    try:
        listed = list(observe)  # a generator gives them once
    except TypeError:  # an array or tensor without a dimension
        raise ArgumentError(f"observe must be a sequence of observers; {said(observe)} was given") from None
    for i, observer in enumerate(listed):
        if not isinstance(observer, Observer):
            what = f"the class {observer.__name__}" if isinstance(observer, type) else type(observer).__name__
            raise ArgumentError(
                f"observe[{i}] must be an Observer, such as Charges(symmetries); {what} was given"
            )
    return listed


class Recording:
    """Calls observers at their steps and keeps their numbers.

    Args:
        samples: how many samples a flow has; not read for a run.
        streamed: are the numbers handed on by `drain`, and not kept for `dataset`?

    Raises:
        ArgumentError: two observers with a variable of one name, a name that is taken by a coordinate or by the run
            itself, or steps that do not go with the dimension. From `observe` and `observe_update`: what an observer
            returns is not what it declares.
    """

    def __init__(
        self, observers: Sequence[Observer], context: Context, samples: int = 0, *, streamed: bool = False
    ) -> None:
        live = [one for observer in observers for one in observer.begin(context)]
        sizes = {dim: len(values) for one in live for dim, values in one.coordinates().values()}
        self._parameters = context.layout.size
        self._tracks = [Track(observer, context, samples, sizes, streamed) for observer in live]
        _require_names(self._tracks)
        if not context.along_flow:
            _require_steps(self._tracks, context)

    def waits_at(self, step: int) -> bool:
        """Does an observer with steps of its own observe this one? That may cost more than a step."""
        return any(step in track.steps for track in self._tracks if track.dim != STEP)

    @property
    def sums_update(self) -> bool:
        """Is of the updates nothing needed but sums that the passes make?"""
        return all(
            track.observer.sums_update
            for track in self._tracks
            if track.observer.update_variables or track.follows_updates
        )

    def observe(self, view: View) -> None:
        """Hand a state to whoever wants its step."""
        for track in self._tracks:
            if view.step in track.steps:
                track.observe(view)
            if track.follows and not math.isnan(view.lr):  # there is a step to come
                track.observer.follow(view)

    def observe_end(self, view: View) -> None:
        """Hand the state after the last step of a run without a planned end to who keeps saved steps."""
        for track in self._tracks:
            if track.dim == SAVED_STEP and len(track.steps):
                track.observe(view)

    def observe_update(self, view: View) -> None:
        """Hand a step that has been taken to whoever wants it."""
        for track in self._tracks:
            if track.follows_updates:
                track.observer.follow_update(view)
            if track.observer.update_variables and view.step in track.steps:
                track.observe_update(view)

    def dataset(self, before: int | None = None) -> xr.Dataset:
        """What was observed, at steps below `before` if it is given.

        An exception may have come in the middle of an observation: only those that are whole are there.
        """
        variables: dict[str, Any] = {}
        coordinates: dict[str, Any] = {}
        declared: dict[str, Variable] = {}
        for track in self._tracks:
            variables |= track.variables(before)
            coordinates |= track.coordinates(before)
            declared |= track.described
        return annotate(xr.Dataset(variables, coords=coordinates), declared)

    @property
    def waiting_bytes(self) -> int:
        """Of what a streamed recording has not handed on."""
        return sum(track.drain.sink.bytes for track in self._tracks if track.drain is not None)

    def drain(self, *, before: int | None = None, ending: bool = False) -> list[Rows]:
        """Hand on what was observed since this was last asked; coordinates of each dimension with it.

        Args:
            before: leave out steps from this one on: an exception may have come in the middle of one.
            ending: nothing will follow, so variables that nobody filled are made up to the others.
        """
        found: dict[str, Rows] = {}
        for track in self._tracks:
            found |= {rows.name: rows for rows in track.drained(before, ending) if rows.name not in found}
        return list(found.values())

    @property
    def coordinates(self) -> xr.Dataset:
        """Those that do not grow."""
        fixed = {name: one for track in self._tracks for name, one in track.observer.coordinates().items()}
        return annotate(xr.Dataset(coords=fixed), self._declared)

    @property
    def constants(self) -> dict[str, float]:
        """Numbers without a dimension."""
        return {
            name: float(value) for track in self._tracks for name, value in track.observer.constants().items()
        }

    @property
    def variables(self) -> dict[str, str]:
        """Name → dimension along which it grows, coordinates too."""
        return {
            name: track.dim
            for track in self._tracks
            for name in (*track.declared, track.dim, time_of(track.dim))
            if name not in track.observer.constants()
        }

    @property
    def growing_coordinates(self) -> list[str]:
        """Names of those that grow."""
        return list(dict.fromkeys(name for track in self._tracks for name in (track.dim, time_of(track.dim))))

    @property
    def _declared(self) -> dict[str, Variable]:
        return {name: one for track in self._tracks for name, one in track.described.items()}

    @property
    def expected_bytes(self) -> int:
        """What the series will take in memory, as far as the sizes of their dimensions are known, in float64."""
        return sum(track.expected_bytes(self._parameters) for track in self._tracks)

    @property
    def identity(self) -> list[Any]:
        """Who observes what, at which steps, and what it remembers before the first: as JSON has it.

        Raises:
            ArgumentError: an observer with a memory that no checkpoint can keep.
        """
        return [track.identity() for track in self._tracks]

    def rows(self, *, all_of_them: bool) -> dict[str, np.ndarray]:
        """What was observed since this was last asked, or all of it: for `take_rows`."""
        return _numbered(track.rows(all_of_them) for track in self._tracks)

    def memory(self) -> tuple[list[Any], dict[str, np.ndarray]]:
        """What the observers remember, as JSON and arrays: for `restore`.

        Raises:
            ArgumentError: one has come to remember what no checkpoint can keep.
        """
        found = [track.memory() for track in self._tracks]
        return [tree for tree, _ in found], _numbered(
            {f"memory.{i}": values for i, values in enumerate(arrays)} for _, arrays in found
        )

    def take_rows(self, rows: Mapping[str, np.ndarray]) -> None:
        """Observations that `rows` gave, in the recording of a run that went on before."""
        for i, track in enumerate(self._tracks):
            track.take_rows(in_part(f"{i}/", rows))

    def restore(self, trees: Sequence[Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Let the observers remember what `memory` gave."""
        for i, (track, tree) in enumerate(zip(self._tracks, trees, strict=True)):
            kept = in_part(f"{i}/", arrays)
            track.observer.restore(unpacked(tree, [kept[f"memory.{j}"] for j in range(len(kept))]))


def _numbered(parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{i}/{name}": values for i, part in enumerate(parts) for name, values in part.items()}


def _require_names(tracks: Sequence[Track]) -> None:
    """Each name is one variable's or one coordinate's."""
    names = [name for track in tracks for name in track.declared]
    taken = set(_TAKEN)
    known: dict[str, tuple[str, np.ndarray]] = {}
    for track in tracks:
        taken |= {track.dim, time_of(track.dim)}
        taken |= {dim for variable in track.declared.values() for dim in variable.dims}
        for name, (dim, values) in track.observer.coordinates().items():
            taken |= {name, dim}
            other_dim, others = known.setdefault(name, (dim, values))
            if dim != other_dim or not np.array_equal(values, others):
                raise ArgumentError(f"observe: two observers have different coordinates {name!r}: rename one")
    for name in names:
        if names.count(name) > 1:
            raise ArgumentError(
                f"observe: two observers have a variable {name!r}: leave one out, or rename it"
            )
        if name in taken:
            raise ArgumentError(
                f"observe: the variable {name!r} has a name that is taken by a dimension, a coordinate or the run "
                "itself: rename it"
            )


def _require_steps(tracks: Sequence[Track], context: Context) -> None:
    """Along one dimension all look at the same steps."""
    along: dict[str, Collection[int]] = {
        STEP: range(context.steps),
        SAVED_STEP: as_steps(context.saved_steps),
    }
    for track in tracks:
        who = type(track.observer).__name__
        if not track.dim.endswith("_step") and track.dim != STEP:
            raise ArgumentError(
                f"observe: {who} has the dimension {track.dim!r}: let its name end in '_step'"
            )
        others = along.setdefault(track.dim, track.steps)
        # A range is compared as such: a set of all steps of a long run would take more memory than what is recorded.
        if track.steps != others and (context.open_ended or frozenset(track.steps) != frozenset(others)):
            raise ArgumentError(
                f"observe: {who} looks at other steps than those of {track.dim!r}: give it a dimension of its own"
            )
