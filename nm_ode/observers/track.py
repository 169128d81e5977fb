"""One observer at work: the steps that it wants, and what it has seen."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from nm_ode.errors import ArgumentError
from nm_ode.observers.base import SAVED_STEP, STEP, TIME, Context, Observer, View
from nm_ode.observers.drained import Drain, coordinate_rows
from nm_ode.observers.memory import made_anew, packed, unkept
from nm_ode.observers.sinks import MemorySink, Sink, StreamSink
from nm_ode.results import Variable, variable
from nm_ode.results.segments import digest
from nm_ode.results.stream import Rows

_SEEN, _TIMES = "@seen", "@times"


class Track:
    """One observer, the steps that it wants, and what it has seen.

    Args:
        sizes: of further dimensions, as far as they are known; all tracks have the same.
    """

    def __init__(
        self, observer: Observer, context: Context, samples: int, sizes: dict[str, int], streamed: bool
    ) -> None:
        self.observer = observer
        self.declared = {**observer.variables, **({} if context.along_flow else observer.update_variables)}
        self.dim = TIME if context.along_flow else observer.dim
        wanted = range(samples) if context.along_flow else observer.steps(context)
        self.steps = as_steps(wanted)
        self.sink: Sink = MemorySink(0 if context.open_ended or streamed else len(self.steps))
        self.drain: Drain | None = None
        if streamed:
            may_lack = frozenset(observer.update_variables) if self.dim != STEP else frozenset[str]()
            self.sink = sink = StreamSink()
            self.drain = Drain(self.dim, self.declared, may_lack, sink)
        self._sizes = sizes
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._seen, self._times = array("q"), array("d")
        self._made_anew = made_anew(observer)
        self._kept: dict[str, int] = {}  # how many of each are in the checkpoint

    @property
    def follows(self) -> bool:
        """Does it look at steps that it does not record, before they are taken?"""
        return type(self.observer).follow is not Observer.follow

    @property
    def follows_updates(self) -> bool:
        """Or after?"""
        return type(self.observer).follow_update is not Observer.follow_update

    @property
    def described(self) -> dict[str, Variable]:
        """The observer's variables, and the coordinates of a dimension of its own."""
        if self.dim in (TIME, STEP, SAVED_STEP):
            return self.declared
        steps = Variable((), "optimiser step", "step")
        return {**self.declared, self.dim: steps, time_of(self.dim): Variable((), "flow time", "1")}

    def expected_bytes(self, parameters: int) -> int:
        sizes = {"param": parameters, **self._sizes}
        rows = [math.prod(sizes.get(dim, 1) for dim in one.dims) for one in self.declared.values()]
        return 8 * len(self.steps) * sum(rows)

    def identity(self) -> list[Any]:
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
        kept = remembered(self.observer, self._made_anew)
        try:
            return packed(kept)
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

    def drained(self, before: int | None, ending: bool) -> list[Rows]:
        """What a streamed track has seen since this was last asked."""
        assert self.drain is not None
        count = self._count(before)
        steps, times = np.array(self._seen[:count], np.int64), np.array(self._times[:count], np.float64)
        common = (STEP, "time", SAVED_STEP, "saved_time")
        known = {**{name: variable(name) for name in common}, **self.described}
        self._seen, self._times = array("q"), array("d")
        return [
            coordinate_rows(self.dim, self.dim, steps, known[self.dim]),
            coordinate_rows(time_of(self.dim), self.dim, times, known[time_of(self.dim)]),
            *self.drain.rows(count, self._nothing() if ending else None),
        ]

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
        return {self.dim: steps, time_of(self.dim): (self.dim, times), **self.observer.coordinates()}

    def _count(self, before: int | None) -> int:
        return sum(before is None or step < before for step in self._seen)

    def _nothing(self) -> dict[str, np.ndarray]:
        """Each variable without an observation: a run may end before its first step."""
        return {
            name: np.empty((0, *(self._sizes.get(dim, 0) for dim in declared.dims)))
            for name, declared in self.declared.items()
        }


def remembered(observer: Observer, anew: Mapping[str, Any]) -> dict[str, Any]:
    """What an observer remembers.

    Args:
        anew: `made_anew` of it when it began.

    Raises:
        ArgumentError: what no checkpoint can keep.
    """
    kept = observer.memory()
    if type(observer).memory is Observer.memory:
        for name, value in made_anew(observer).items():
            if anew.get(name) is not value:  # it will not be made again
                raise unkept(observer, name, value)
    return dict(kept)


def as_steps(steps: Collection[int]) -> Collection[int]:
    """What is asked for each step: a range as it is, which may have no end."""
    return steps if isinstance(steps, range) else frozenset(steps)


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    """Who looks after the last step sees no update there: NaN."""
    missing = np.full((count - len(values), *values.shape[1:]), np.nan)
    return np.concatenate([values, missing]) if len(missing) else values


def time_of(dim: str) -> str:
    """The flow time's name along a dimension of steps."""
    return {STEP: "time", SAVED_STEP: "saved_time"}.get(dim, f"{dim.removesuffix('_step')}_time")
