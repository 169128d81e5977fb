"""Observers at work along one run or flow, and the dataset that becomes of it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.observers.base import SAVED_STEP, STEP, TIME, Context, Observer, View
from nm_ode.observers.memory import in_part, made_anew, packed, unkept, unpacked
from nm_ode.observers.sinks import MemorySink
from nm_ode.results import Variable, annotate
from nm_ode.results.segments import digest

_TAKEN = ("lr", "initial_state", "final_state", "state_index", "solver_error")
"""What a run or a solution adds to what was observed."""

_SEEN, _TIMES = "@seen", "@times"


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

    Raises:
        ArgumentError: two observers with a variable of one name, a name that is taken by a coordinate or by the run
            itself, or steps that do not go with the dimension. From `observe` and `observe_update`: what an observer
            returns is not what it declares.
    """

    def __init__(self, observers: Sequence[Observer], context: Context, samples: int = 0) -> None:
        live = [one for observer in observers for one in observer.begin(context)]
        sizes = {dim: len(values) for one in live for dim, values in one.coordinates().values()}
        self._parameters = context.layout.size
        self._tracks = [_Track(observer, context, samples, sizes) for observer in live]
        _require_names(self._tracks)
        if not context.along_flow:
            _require_steps(self._tracks, context)

    def waits_at(self, step: int) -> bool:
        """Does an observer with steps of its own observe this one? That may cost more than a step."""
        return any(step in track.steps for track in self._tracks if track.dim != STEP)

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
            if track.follows:
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


class _Track:
    """One observer, the steps that it wants, and what it has seen.

    Args:
        sizes: of further dimensions, as far as they are known; all tracks have the same.
    """

    def __init__(self, observer: Observer, context: Context, samples: int, sizes: dict[str, int]) -> None:
        self.observer = observer
        self.declared = {**observer.variables, **({} if context.along_flow else observer.update_variables)}
        self.dim = TIME if context.along_flow else observer.dim
        wanted = range(samples) if context.along_flow else observer.steps(context)
        self.steps = _as_steps(wanted)
        self.sink = MemorySink(0 if context.open_ended else len(self.steps))
        self._sizes = sizes
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._seen, self._times = array("q"), array("d")
        self._made_anew: dict[str, Any] = {}
        self._kept: dict[str, int] = {}  # how many of each are in the checkpoint

    @property
    def follows(self) -> bool:
        """Does it look at steps that it does not record?"""
        return type(self.observer).follow_update is not Observer.follow_update

    @property
    def described(self) -> dict[str, Variable]:
        """The observer's variables, and the coordinates of a dimension of its own."""
        if self.dim in (TIME, STEP, SAVED_STEP):
            return self.declared
        steps = Variable((), "optimiser step", "step")
        return {**self.declared, self.dim: steps, _time_of(self.dim): Variable((), "flow time", "1")}

    def expected_bytes(self, parameters: int) -> int:
        sizes = {"param": parameters, **self._sizes}
        rows = [math.prod(sizes.get(dim, 1) for dim in one.dims) for one in self.declared.values()]
        return 8 * len(self.steps) * sum(rows)

    def identity(self) -> list[Any]:
        self._made_anew = made_anew(self.observer)
        tree, arrays = self.memory()
        return [
            f"{type(self.observer).__module__}.{type(self.observer).__qualname__}",
            self.dim,
            sorted(self.declared),
            digest(np.array(sorted(self.steps))) if not isinstance(self.steps, range) else len(self.steps),
            {name: digest(values) for name, (_, values) in self.observer.coordinates().items()},
            tree,
            [digest(kept) for kept in arrays],
        ]

    def memory(self) -> tuple[Any, list[np.ndarray]]:
        """What the observer remembers, as JSON and arrays."""
        kept = self.observer.memory()
        if type(self.observer).memory is Observer.memory:
            for name, value in made_anew(self.observer).items():
                if self._made_anew.get(name) is not value:  # it will not be made again
                    raise unkept(self.observer, name, value)
        try:
            return packed(dict(kept))
        except TypeError as error:
            who = type(self.observer).__name__
            raise ArgumentError(f"{who}.memory holds a {error}, which no checkpoint can keep") from None

    def rows(self, all_of_them: bool) -> dict[str, np.ndarray]:
        known = {} if all_of_them else self._kept
        seen, times = (np.array(one[known.get(_SEEN, 0) :]) for one in (self._seen, self._times))
        found = {_SEEN: seen.astype(np.int64), _TIMES: times, **self.sink.since(known)}
        self._kept = {name: known.get(name, 0) + len(rows) for name, rows in found.items()}
        return found

    def take_rows(self, rows: Mapping[str, np.ndarray]) -> None:
        rows = dict(rows)
        self._seen.extend(rows.pop(_SEEN).tolist())
        self._times.extend(rows.pop(_TIMES).tolist())
        self.sink.put(rows)
        self._kept = {
            _SEEN: len(self._seen),
            **{name: len(values) for name, values in self.sink.since({}).items()},
        }

    def observe(self, view: View) -> None:
        self._take(self.observer.observe(view), self.observer.variables)
        self._seen.append(view.step)
        self._times.append(view.time)

    def observe_update(self, view: View) -> None:
        self._take(self.observer.observe_update(view), self.observer.update_variables)

    def _take(self, values: Any, declared: Mapping[str, Variable]) -> None:
        """What is returned is what is declared, before the sink has it: later nobody knows whose it was."""
        if not isinstance(values, Mapping) or values.keys() != declared.keys():
            got = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
            raise ArgumentError(
                f"observe: {type(self.observer).__name__} returned {got}; it declares the variables {sorted(declared)}"
            )
        for name, value in values.items():
            shape = value.shape if isinstance(value, Tensor) else self._shape_of(name, value)
            if shape != self._shapes.get(name):
                self._require_shape(name, tuple(shape), declared[name].dims)
        self.sink.take(values)

    def _shape_of(self, name: str, value: Any) -> tuple[int, ...]:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError):  # a list of unequal lists, or of tensors
            array = np.array(None)
        if array.dtype.kind not in "biuf":
            who = type(self.observer).__name__
            raise ArgumentError(
                f"observe: {who}: {name!r} is {type(value).__name__}; return a tensor or a number"
            )
        return array.shape

    def _require_shape(self, name: str, shape: tuple[int, ...], dims: tuple[str, ...]) -> None:
        """One size for each dimension, whoever has it."""
        wanted = tuple(map(self._sizes.setdefault, dims, shape)) if len(dims) == len(shape) else None
        if shape != wanted:
            told = ", ".join(f"{dim} ({self._sizes.get(dim, 'of any size')})" for dim in dims) or "none"
            who = type(self.observer).__name__
            raise ArgumentError(f"observe: {who}: {name!r} has shape {shape}; its dimensions are {told}")
        self._shapes[name] = shape

    def variables(self, before: int | None) -> dict[str, Any]:
        """Name → (dimensions, values), of observations at steps below `before`."""
        arrays = {**self._nothing(), **self.sink.arrays(self._count(before))}
        for name in self.observer.update_variables if self.dim != TIME else ():
            arrays[name] = _filled(arrays[name], self._count(before))
        constants = {name: ((), value) for name, value in self.observer.constants().items()}
        return {
            name: ((self.dim, *self.declared[name].dims), values) for name, values in arrays.items()
        } | constants

    def coordinates(self, before: int | None) -> dict[str, Any]:
        """Where they lie."""
        count = self._count(before)
        steps = np.array(self._seen[:count], dtype=int)
        times = np.array(self._times[:count], dtype=float)
        if self.dim == TIME:
            return {TIME: times, **self.observer.coordinates()}
        return {self.dim: steps, _time_of(self.dim): (self.dim, times), **self.observer.coordinates()}

    def _count(self, before: int | None) -> int:
        return sum(before is None or step < before for step in self._seen)

    def _nothing(self) -> dict[str, np.ndarray]:
        """Each variable without an observation: a run may end before its first step."""
        return {
            name: np.empty((0, *(self._sizes.get(dim, 0) for dim in declared.dims)))
            for name, declared in self.declared.items()
        }


def _require_names(tracks: Sequence[_Track]) -> None:
    """Each name is one variable's or one coordinate's."""
    names = [name for track in tracks for name in track.declared]
    taken = set(_TAKEN)
    known: dict[str, tuple[str, np.ndarray]] = {}
    for track in tracks:
        taken |= {track.dim, _time_of(track.dim)}
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


def _require_steps(tracks: Sequence[_Track], context: Context) -> None:
    """Along one dimension all look at the same steps."""
    along: dict[str, Collection[int]] = {
        STEP: range(context.steps),
        SAVED_STEP: _as_steps(context.saved_steps),
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


def _as_steps(steps: Collection[int]) -> Collection[int]:
    """What is asked for each step: a range as it is, which may have no end."""
    return steps if isinstance(steps, range) else frozenset(steps)


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    """Who looks after the last step sees no update there: NaN."""
    missing = np.full((count - len(values), *values.shape[1:]), np.nan)
    return np.concatenate([values, missing]) if len(missing) else values


def _time_of(dim: str) -> str:
    """The flow time's name along a dimension of steps."""
    return {STEP: "time", SAVED_STEP: "saved_time"}.get(dim, f"{dim.removesuffix('_step')}_time")
