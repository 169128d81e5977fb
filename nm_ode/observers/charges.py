"""Charges and their drivers, step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nm_ode.arguments import as_count, said
from nm_ode.errors import ArgumentError
from nm_ode.observers.base import SAVED_STEP, STEP, Context, Coordinates, Observer, View
from nm_ode.passes import Passes
from nm_ode.results import Variable, variable
from nm_ode.symmetries import ChargeMeter, Symmetry

CHARGES = "charge_index"
"""The dimension along which charges lie: not "charge", for xarray takes a variable of its own dimension's name for a
coordinate."""

_DRIVER, _CROSS = ("update", "update"), ("update", "velocity")

_STATE = ("charge", "generator_norm", "constraint_residual")


@dataclass(frozen=True)
class Charges(Observer):
    """The charges of symmetries: sums over their slices; nothing of theta's size is kept.

    Along a run, at each step: `charge` Q before the update, `constraint_residual` ⟨g, ξ⟩, `generator_norm` ‖ξ‖,
    `charge_driver` [w, w] of the update −lr·w, and with Nesterov `charge_cross_driver` [w, v]; `saved_charge` at saved
    steps. Along a flow: `charge`.

    At each step that is 32 bytes a charge. With `every` = k > 1 there are `charge`, `constraint_residual` and
    `generator_norm` at steps 0, k, 2k, … along `charge_step`; the laws of motion need what drives the charges at each
    step, and predict nothing from them.

    Args:
        symmetries: as `find_symmetries` or `symmetries_of` gives them; none at all observes nothing.
        every: from one step at which the charges are recorded to the next.

    Raises:
        SymmetryError: symmetries of another model.
        ArgumentError: `every` is no whole number above 0.
    """

    symmetries: Sequence[Symmetry]
    every: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", as_count(self.every, "every"))
        given: Any = self.symmetries
        whole = isinstance(given, Iterable) and not isinstance(given, str) and getattr(given, "ndim", 1) > 0
        listed = list(given) if whole else [given]
        for symmetry in listed:
            if not whole or not isinstance(symmetry, Symmetry):
                raise ArgumentError(
                    "Charges takes a sequence of symmetries, as nm_ode.symmetries_of(problem) gives them; "
                    f"{said(symmetry)} was given"
                )
        if not isinstance(given, Sequence):
            object.__setattr__(self, "symmetries", listed)

    def begin(self, context: Context) -> Sequence[Observer]:
        if not self.symmetries:
            return []
        meter = ChargeMeter(context.layout, self.symmetries, context.device)
        if context.along_flow:
            return [_ChargeOfState(meter, "charge", STEP)]
        saved = _ChargeOfState(meter, "saved_charge", SAVED_STEP)
        if self.every > 1:
            return [
                _ChargesOfSomeSteps(meter, context.passes, range(0, context.steps, self.every)),
                saved,
            ]
        nesterov = bool(getattr(context.optimizer, "nesterov", False))
        return [_ChargesOfSteps(meter, context.passes, range(context.steps), nesterov), saved]


class _ChargeOfState(Observer):
    def __init__(self, meter: ChargeMeter, name: str, dim: str) -> None:
        self._meter, self._name = meter, name
        self.dim = dim
        self.variables = {name: variable(name, CHARGES)}

    def coordinates(self) -> Coordinates:
        return charge_coordinates(self._meter.symmetries)

    def observe(self, view: View) -> Mapping[str, Any]:
        return {self._name: self._meter.charge(view.theta_parts)}


class _ChargesOfSomeSteps(Observer):
    dim: str = "charge_step"
    variables: Mapping[str, Variable] = {name: variable(name, CHARGES) for name in _STATE}

    def __init__(self, meter: ChargeMeter, passes: Passes, steps: range) -> None:
        self._meter, self._passes, self._steps = meter, passes, steps
        passes.ask(meter.wanted_state, steps)

    def steps(self, context: Context) -> Collection[int]:
        return self._steps

    def coordinates(self) -> Coordinates:
        return charge_coordinates(self._meter.symmetries)

    def observe(self, view: View) -> Mapping[str, Any]:
        measured = self._meter.state(view.theta_parts, view.gradient_parts, self._passes.of(view))
        return dict(zip(_STATE, measured, strict=True))


class _ChargesOfSteps(_ChargesOfSomeSteps):
    dim: str = STEP

    def __init__(self, meter: ChargeMeter, passes: Passes, steps: range, nesterov: bool) -> None:
        super().__init__(meter, passes, steps)
        self._nesterov = nesterov
        drivers = {"charge_driver": _DRIVER} | ({"charge_cross_driver": _CROSS} if nesterov else {})
        self.update_variables = {name: variable(name, CHARGES) for name in drivers}
        for pair in drivers.values():
            passes.ask(meter.wanted_bracket(pair), steps, after=True)

    def observe_update(self, view: View) -> Mapping[str, Any]:
        # A step of learning rate 0 moves nothing, and nothing drives it.
        lr = view.lr or float("inf")
        sums, update = self._passes.of(view, after=True), view.update_parts
        found = {"charge_driver": self._meter.bracket(update, update, sums, _DRIVER) / lr**2}
        if self._nesterov:
            cross = self._meter.bracket(update, view.memory_parts("velocity"), sums, _CROSS)
            found["charge_cross_driver"] = cross / -lr
        return found


def charge_coordinates(symmetries: Sequence[Symmetry]) -> dict[str, tuple[str, np.ndarray]]:
    """Which symmetry, kind and channel each charge belongs to."""
    counts = [symmetry.count for symmetry in symmetries]

    def each(values: list[str]) -> np.ndarray:
        # Zarr v3 has a type for strings, none for numpy's '<U'.
        return np.repeat(np.array(values, dtype=object), counts)

    return {
        "charge_symmetry": (CHARGES, each([symmetry.name for symmetry in symmetries])),
        "kind": (CHARGES, each([symmetry.kind for symmetry in symmetries])),
        "channel": (CHARGES, np.concatenate([np.arange(count) for count in counts])),
    }
