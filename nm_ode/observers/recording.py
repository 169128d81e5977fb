"""Observers at work along one run or flow, and the dataset that becomes of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from nm_ode.errors import ArgumentError
from nm_ode.observers.base import SAVED_STEP, STEP, TIME, Context, Observer, View
from nm_ode.observers.sinks import MemorySink
from nm_ode.results import Variable, annotate


def require_observers(observe: Any) -> list[Observer]:
    """What a caller gives as `observe`.

    Raises:
        ArgumentError: no sequence of observers.
    """
    if isinstance(observe, Observer):
        raise ArgumentError(f"observe must be a sequence of observers: write [{type(observe).__name__}(…)]")
    for i, observer in enumerate(observe):
        if not isinstance(observer, Observer):
            what = f"the class {observer.__name__}" if isinstance(observer, type) else type(observer).__name__
            raise ArgumentError(
                f"observe[{i}] must be an Observer, such as Charges(symmetries); {what} was given"
            )
    return list(observe)


class Recording:
    """Calls observers at their steps and keeps their numbers.

    Args:
        samples: how many samples a flow has; not read for a run.

    Raises:
        ArgumentError: two observers with a variable of one name.
    """

    def __init__(self, observers: Sequence[Observer], context: Context, samples: int = 0) -> None:
        live = [one for observer in observers for one in observer.begin(context)]
        self._context = context
        self._tracks = [_Track(observer, context, samples) for observer in live]
        names = [name for track in self._tracks for name in track.declared]
        for name in names:
            if names.count(name) > 1:
                raise ArgumentError(
                    f"observe: two observers have a variable {name!r}: leave one out, or rename it"
                )

    def waits_at(self, step: int) -> bool:
        """Does an observer with steps of its own observe this one? That may cost more than a step."""
        return any(step in track.steps for track in self._tracks if track.dim != STEP)

    def observe(self, view: View) -> None:
        """Hand a state to whoever wants its step."""
        for track in self._tracks:
            if view.step in track.steps:
                track.observe(view)

    def observe_update(self, view: View) -> None:
        """Hand a step that has been taken to whoever wants it."""
        for track in self._tracks:
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


class _Track:
    """One observer, the steps that it wants, and what it has seen."""

    def __init__(self, observer: Observer, context: Context, samples: int) -> None:
        self.observer = observer
        self.declared = {**observer.variables, **({} if context.along_flow else observer.update_variables)}
        self.dim = TIME if context.along_flow else observer.dim
        self.steps: Collection[int] = (
            range(samples) if context.along_flow else frozenset(observer.steps(context))
        )
        self.sink = MemorySink(len(self.steps))
        self._seen: list[int] = []
        self._times: list[float] = []

    @property
    def described(self) -> dict[str, Variable]:
        """The observer's variables, and the coordinates of a dimension of its own."""
        if self.dim in (TIME, STEP, SAVED_STEP):
            return self.declared
        steps = Variable((), "optimiser step", "step")
        return {**self.declared, self.dim: steps, _time_of(self.dim): Variable((), "flow time", "1")}

    def observe(self, view: View) -> None:
        self._take("observe", self.observer.observe(view), self.observer.variables)
        self._seen.append(view.step)
        self._times.append(view.time)

    def observe_update(self, view: View) -> None:
        made = self.observer.observe_update(view)
        self._take("observe_update", made, self.observer.update_variables)

    def _take(self, method: str, made: Mapping[str, Any], declared: Mapping[str, Variable]) -> None:
        if made.keys() != declared.keys():
            raise ArgumentError(
                f"{type(self.observer).__name__}.{method} returned {sorted(made)}; it must return what it declares: "
                f"{sorted(declared)}"
            )
        for name, value in made.items():
            if np.ndim(value) != len(declared[name].dims):
                raise ArgumentError(
                    f"{type(self.observer).__name__}.{method} returned {name!r} of shape {tuple(np.shape(value))}; it "
                    f"declares the dimensions {declared[name].dims}"
                )
        self.sink.take(made)

    def variables(self, before: int | None) -> dict[str, Any]:
        """Name → (dimensions, values), of observations at steps below `before`."""
        arrays = {**self._nothing(), **self.sink.arrays(self._count(before))}
        constants = {name: ((), value) for name, value in self.observer.constants().items()}
        return {
            name: ((self.dim, *self.declared[name].dims), values) for name, values in arrays.items()
        } | constants

    def coordinates(self, before: int | None) -> dict[str, Any]:
        """Where they lie."""
        count = self._count(before)
        steps, times = np.array(self._seen[:count], dtype=int), np.array(self._times[:count])
        if self.dim == TIME:
            return {TIME: times, **self.observer.coordinates()}
        return {self.dim: steps, _time_of(self.dim): (self.dim, times), **self.observer.coordinates()}

    def _count(self, before: int | None) -> int:
        return sum(before is None or step < before for step in self._seen)

    def _nothing(self) -> dict[str, np.ndarray]:
        """Each variable without an observation: a run may end before its first step."""
        sizes = {dim: len(values) for dim, values in self.observer.coordinates().values()}
        return {
            name: np.empty((0, *(sizes.get(dim, 0) for dim in declared.dims)))
            for name, declared in self.declared.items()
        }


def _time_of(dim: str) -> str:
    """The flow time's name along a dimension of steps."""
    return {STEP: "time", SAVED_STEP: "saved_time"}.get(dim, f"{dim.removesuffix('_step')}_time")
