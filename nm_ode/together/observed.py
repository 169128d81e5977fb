"""Observers of all members: those of every run on rows, any other by itself for each member."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.errors import ArgumentError
from nm_ode.observers import Context, Norms, Observer, Sketch, View
from nm_ode.observers.base import Coordinates
from nm_ode.observers.memory import made_anew
from nm_ode.observers.norms import layer_coordinates
from nm_ode.observers.track import remembered
from nm_ode.parameters import Layout
from nm_ode.planned import PlannedRun, always_recorded
from nm_ode.results import Variable, variable
from nm_ode.results.members import MEMBER
from nm_ode.together.view import MembersView


def observers_of(
    plans: Sequence[PlannedRun], given: Sequence[Observer], sketch: Sketch | None
) -> tuple[list[Observer], list[EachMember]]:
    """What records all members: what every run has, and each of the observers that were given.

    Raises:
        ArgumentError: an observer records something else of one member than of another.
    """
    context = plans[0].context()
    always: list[Observer] = []
    for observer in always_recorded(sketch):
        if isinstance(observer, Norms):
            always.append(NormsOfRows(context.layout, len(plans)))
        else:
            always.extend(OfRows(one, len(plans)) for one in observer.begin(context))
    contexts = [plan.context() for plan in plans]
    each = [one for observer in given for one in _of_each(observer, contexts)]
    return always, each


class _OfMembers(Observer):
    """With `member` before the other dimensions of its variables."""

    def __init__(self, members: int) -> None:
        self._members = members

    def coordinates(self) -> Coordinates:
        return {MEMBER: (MEMBER, np.arange(self._members))}

    def memory(self) -> Mapping[str, Any]:
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Nothing is remembered."""


class OfRows(_OfMembers):
    """An observer that does to rows what it does to one vector."""

    def __init__(self, observer: Observer, members: int) -> None:
        super().__init__(members)
        self._observer, self.dim = observer, observer.dim
        self.variables = _with_members(observer.variables)

    def observe(self, view: View) -> Mapping[str, Any]:
        return self._observer.observe(view)


class NormsOfRows(_OfMembers):
    """`Norms` of each member, summed together."""

    variables: Mapping[str, Variable] = {
        "grad_norm": variable("grad_norm", MEMBER),
        "layer_grad_norm": variable("layer_grad_norm", MEMBER, "layer"),
    }
    update_variables: Mapping[str, Variable] = {
        "update_norm": variable("update_norm", MEMBER),
        "layer_update_norm": variable("layer_update_norm", MEMBER, "layer"),
    }

    def __init__(self, layout: Layout, members: int) -> None:
        super().__init__(members)
        self._layout = layout

    def coordinates(self) -> Coordinates:
        return {**super().coordinates(), **layer_coordinates(self._layout)}

    def observe(self, view: View) -> Mapping[str, Any]:
        return self._norms("grad_norm", view.gradient)

    def observe_update(self, view: View) -> Mapping[str, Any]:
        return self._norms("update_norm", view.update)

    def _norms(self, name: str, rows: Tensor) -> Mapping[str, Any]:
        of_layers = self._layout.layer_norms(rows).double()
        return {name: torch.linalg.vector_norm(of_layers, dim=-1), f"layer_{name}": of_layers}


class EachMember(_OfMembers):
    """One observer for each member, who sees that member alone.

    Args:
        observers: shape (M,), alike.
        context: of the first member.
    """

    def __init__(self, observers: Sequence[Observer], context: Context) -> None:
        super().__init__(len(observers))
        self._observers, first = observers, observers[0]
        self._steps = first.steps(context)
        self._anew = [made_anew(one) for one in observers]
        self.dim = first.dim
        self.variables, self.update_variables = map(_with_members, (first.variables, first.update_variables))

    def steps(self, context: Context) -> Collection[int]:
        return self._steps

    def coordinates(self) -> Coordinates:
        return {**super().coordinates(), **self._observers[0].coordinates()}

    def constants_of_members(self) -> dict[str, list[float]]:
        """Name → a number for each member."""
        each = [one.constants() for one in self._observers]
        return {name: [constants[name] for constants in each] for name in each[0]}

    def observe(self, view: View) -> Mapping[str, Any]:
        assert isinstance(view, MembersView)
        return self._rows({i: self._observers[i].observe(view.member(i)) for i in view.living})

    def observe_update(self, view: View) -> Mapping[str, Any]:
        assert isinstance(view, MembersView)
        return self._rows({i: self._observers[i].observe_update(view.member(i)) for i in view.living})

    def memory(self) -> Mapping[str, Any]:
        kept = [remembered(*pair) for pair in zip(self._observers, self._anew, strict=True)]
        kind = type(self._observers[0])
        return {"of": f"{kind.__module__}.{kind.__qualname__}", "members": kept}

    def restore(self, memory: Mapping[str, Any]) -> None:
        for one, kept in zip(self._observers, memory["members"], strict=True):
            one.restore(kept)

    def _rows(self, seen: Mapping[int, Mapping[str, Any]]) -> Mapping[str, Any]:
        some = next(iter(seen.values()))
        if not all(isinstance(one, Mapping) and one.keys() == some.keys() for one in seen.values()):
            return some  # whoever takes it says that it is not what was declared
        return {name: self._stacked({i: one[name] for i, one in seen.items()}) for name in some}

    def _stacked(self, values: Mapping[int, Any]) -> Tensor:
        found = {
            i: one if isinstance(one, Tensor) else torch.from_numpy(_number(one)) for i, one in values.items()
        }
        nothing = torch.zeros_like(next(iter(found.values())))
        return torch.stack([found.get(i, nothing) for i in range(self._members)])


class FollowingEachMember(EachMember):
    """The same of observers that look at steps which they do not record."""

    def follow(self, view: View) -> None:
        assert isinstance(view, MembersView)
        for i in view.living:
            self._observers[i].follow(view.member(i))

    def follow_update(self, view: View) -> None:
        assert isinstance(view, MembersView)
        for i in view.living:
            self._observers[i].follow_update(view.member(i))


def _of_each(given: Observer, contexts: Sequence[Context]) -> list[EachMember]:
    """An observer becomes one or several for each member."""
    each = [_begun(given, context) for context in contexts]
    kinds = [[(type(one), *one.variables, *one.update_variables) for one in begun] for begun in each]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ArgumentError(
                f"observe: {type(given).__name__} records something else of member {i} than of member 0, whose "
                "optimiser is of another kind: train them in two calls"
            )
    return [
        (FollowingEachMember if _follows(column[0]) else EachMember)(column, contexts[0])
        for column in zip(*each, strict=True)
    ]


def _begun(given: Observer, context: Context) -> Sequence[Observer]:
    begun = given.begin(context)
    if any(one is given for one in begun):  # it remembers what it saw of one member
        return copy.deepcopy(given).begin(context)
    return begun


def _follows(observer: Observer) -> bool:
    kind = type(observer)
    return kind.follow is not Observer.follow or kind.follow_update is not Observer.follow_update


def _with_members(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    return {name: replace(one, dims=(MEMBER, *one.dims)) for name, one in variables.items()}


def _number(value: Any) -> Any:
    return np.asarray(value, dtype=np.float64)
