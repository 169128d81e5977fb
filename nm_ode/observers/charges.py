"""Charges and their drivers, step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.arguments import as_count, said
from nm_ode.charges.errors import LawError
from nm_ode.charges.law import Law
from nm_ode.charges.laws import LAWS, law_named, require_described
from nm_ode.charges.settings import SETTINGS, Settings
from nm_ode.errors import ArgumentError
from nm_ode.observers.base import SAVED_STEP, STEP, Context, Coordinates, Observer, View
from nm_ode.observers.charge_classes import CLASS, Classes
from nm_ode.observers.responses import Responses
from nm_ode.optimizers import SGD, Optimizer, hyperparameters
from nm_ode.passes import Passes
from nm_ode.required import as_flag
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
    See docs/theory.md §2.1, §3.2, §3.7.

    Along a run, at each step: `charge` Q before the update, `constraint_residual` ⟨g, ξ⟩, `generator_norm` ‖ξ‖,
    `charge_driver` [w, w] of the update −lr·w, and with Nesterov `charge_cross_driver` [w, v]; `saved_charge` at saved
    steps. Along a flow: `charge`.

    At each step that is 32 bytes a charge, with Nesterov 40. With `every` = k > 1 there are `charge`,
    `constraint_residual` and `generator_norm` at steps 0, k, 2k, … along `charge_step`, and `<law>_response`,
    `<law>_propagator`: what each law of motion needs of the steps between, summed on the device, so that
    `predict_charges` predicts at these steps what it predicts from every step's drivers. A record has 24 bytes a
    charge without laws; with those of plain descent 64, of momentum 72, of Nesterov 88: divide by k for the bytes a
    step.

    Args:
        symmetries: as `find_symmetries` or `symmetries_of` gives them; none at all observes nothing.
        every: from one step at which the charges are recorded to the next.
        laws: names of the laws to sum for, where `every` is above 1; None for all that describe the run's optimiser.
        residual: sum what ⟨g, ξ⟩ does, too, for predictions `with_residual`: it is zero but for a normalisation's ε and
            gradients that are not the loss's, and takes half of the time of the sums.

    Raises:
        SymmetryError: symmetries of another model.
        LawError: from the run: a law that does not describe it.
        ArgumentError: `every` is no whole number above 0.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 8, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=10, observe=[charges])
        >>> dict(run.charge.sizes), float(abs(run.constraint_residual).max()) < 1e-12
        ({'step': 10, 'charge_index': 17}, True)
    """

    symmetries: Sequence[Symmetry]
    every: int = 1
    laws: Sequence[str] | None = None
    residual: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", as_count(self.every, "every"))
        object.__setattr__(self, "residual", as_flag(self.residual, "residual"))
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
        groups = None if context.loop is None else context.loop.groups
        classes = None if groups is None else Classes(self.symmetries, groups, CHARGES)
        if self.every > 1:
            steps, laws = range(0, context.steps, self.every), self._laws(context, classes)
            if laws:
                settings = classes.merged if classes is not None else _hyperparameters(context.optimizer)
                responses = Responses(
                    {
                        name: (law.recursion, self.residual and law.takes_residual)
                        for name, law in laws.items()
                        if law.recursion is not None
                    },
                    settings,
                    meter.is_translation,
                    None if classes is None else torch.from_numpy(classes.of_charge).to(context.device),
                )
                return [_ChargesWithLaws(meter, context, steps, responses, settings, classes), saved]
            return [_ChargesOfSomeSteps(meter, context.passes, steps, classes), saved]
        own_loop = context.loop is not None and isinstance(context.optimizer, SGD)
        settings = _hyperparameters(context.optimizer) if own_loop else {}
        nesterov = bool(getattr(context.optimizer, "nesterov", False))
        if classes is not None:
            settings = classes.merged
            nesterov = settings["nesterov"]
        return [_ChargesOfSteps(meter, context, nesterov, settings, classes), saved]

    def _laws(self, context: Context, classes: Classes | None) -> dict[str, Law]:
        """Those to sum for, by name: of several classes what describes any.

        Raises:
            LawError: a law that was asked for does not describe the run, or cannot be summed.
        """
        each = [] if classes is None else [one for one in classes.hyperparameters if one is not None]
        if self.laws is None:
            return {
                name: law
                for name, law in LAWS.items()
                if law.recursion is not None
                and (_describes(name, context.optimizer) or any(_is_of_sgd(name, one) for one in each))
            }
        for name in self.laws:
            if law_named(name).recursion is None:
                raise LawError(
                    f"law {name!r} needs what drives the charges at each step: take Charges with every=1"
                )
            if any(_is_of_sgd(name, one) for one in each):
                continue
            if context.optimizer is None:
                raise LawError(f"law {name!r}: no law is known of this optimiser: leave laws out")
            require_described(name, type(context.optimizer).__name__, hyperparameters(context.optimizer))
        return {name: LAWS[name] for name in self.laws}


def _describes(law: str, optimizer: Optimizer | None) -> bool:
    return optimizer is not None and _is_of(law, type(optimizer).__name__, hyperparameters(optimizer))


def _is_of_sgd(law: str, settings: Mapping[str, Any]) -> bool:
    return _is_of(law, SGD.__name__, settings)


def _is_of(law: str, optimizer: str, settings: Mapping[str, Any]) -> bool:
    try:
        require_described(law, optimizer, settings)
    except LawError:
        return False
    return True


def _hyperparameters(optimizer: Optimizer | None) -> Mapping[str, Any]:
    return {} if optimizer is None else hyperparameters(optimizer)


class _ChargeOfState(Observer):
    def __init__(self, meter: ChargeMeter, name: str, dim: str) -> None:
        self._meter, self._name = meter, name
        self.dim = dim
        self.variables = {name: variable(name, CHARGES)}

    def coordinates(self) -> Coordinates:
        return charge_coordinates(self._meter.symmetries)

    def observe(self, view: View) -> Mapping[str, Any]:
        return {self._name: self._meter.charge(view.theta_parts)}


class _StatesOfCharges(Observer):
    """Q, ‖ξ‖ and ⟨g, ξ⟩ before the steps at which it looks."""

    variables: Mapping[str, Variable] = {name: variable(name, CHARGES) for name in _STATE}

    def __init__(
        self, meter: ChargeMeter, passes: Passes, steps: range, classes: Classes | None = None
    ) -> None:
        self._meter, self._passes, self._steps, self._classes = meter, passes, steps, classes
        passes.ask(meter.wanted_state, steps)

    def coordinates(self) -> Coordinates:
        of_classes = {} if self._classes is None else self._classes.coordinates
        return {**charge_coordinates(self._meter.symmetries), **of_classes}

    def observe(self, view: View) -> Mapping[str, Any]:
        measured = self._meter.state(view.theta_parts, view.gradient_parts, self._passes.of(view))
        return dict(zip(_STATE, measured, strict=True))


class _ChargesOfSomeSteps(_StatesOfCharges):
    dim: str = "charge_step"

    def steps(self, context: Context) -> Collection[int]:
        return self._steps


class _ChargesWithLaws(_ChargesOfSomeSteps):
    """Those, and what laws need of the steps between."""

    def __init__(
        self,
        meter: ChargeMeter,
        context: Context,
        steps: range,
        responses: Responses,
        hyperparameters: Mapping[str, Any],
        classes: Classes | None,
    ) -> None:
        super().__init__(meter, context.passes, steps, classes)
        self.sums_update = meter.sums_brackets
        for pair in [_DRIVER, *([_CROSS] if hyperparameters.get("nesterov") else [])]:
            context.passes.ask(meter.wanted_bracket(pair), range(context.steps), after=True)
        self._responses = responses
        self._hyperparameters = dict(hyperparameters)
        self.variables = {
            **_ChargesOfSomeSteps.variables,
            **self._responses.variables(CHARGES),
            "sgd_settings": _settings_variable(classes),
            "summed_steps": variable("summed_steps"),
        }
        # The next step that is taken begins anew: a step may be skipped after its record.
        self._recorded = False
        self._residual: Tensor | None = None

    def observe(self, view: View) -> Mapping[str, Any]:
        found = super().observe(view)
        self._recorded, self._residual = True, found["constraint_residual"]
        settings = _settings(self._hyperparameters, view, self._classes)
        sums = self._responses.values()
        return {**found, **sums, "sgd_settings": settings, "summed_steps": self._responses.steps}

    def follow(self, view: View) -> None:
        if self._responses.takes_residual and view.step not in self._steps:
            self._residual = self._meter.constraint(view.gradient_parts, view.theta_parts)

    def follow_update(self, view: View) -> None:
        if self._recorded:
            self._responses.clear()
            self._recorded = False
        now, first = {**self._hyperparameters, **view.hyperparameters}, view.step == 0
        each: list[Settings | None] = (
            [Settings.of(now, view.lr, first=first)]
            if self._classes is None
            else self._classes.settings(first=first)
        )
        update, sums = view.update_parts, self._passes.of(view, after=True)
        own = self._meter.bracket(update, update, sums, _DRIVER)
        cross = residual = torch.zeros_like(own)
        if any(of is not None and of.nesterov for of in each):
            # A loop of the user's own may turn it on later: then nobody has asked for it.
            asked = sums if self._hyperparameters.get("nesterov") else None
            cross = self._meter.bracket(update, view.memory_parts("velocity"), asked, _CROSS).neg_()
        if self._responses.takes_residual and self._residual is not None:
            residual = self._residual
        self._responses.add(each, torch.stack([own, cross, residual]))

    def memory(self) -> Mapping[str, Any]:
        return {"recorded": self._recorded, **self._responses.memory()}

    def restore(self, memory: Mapping[str, Any]) -> None:
        self._recorded = memory["recorded"]
        self._responses.restore(memory)


class _ChargesOfSteps(_StatesOfCharges):
    def __init__(
        self,
        meter: ChargeMeter,
        context: Context,
        nesterov: bool,
        settings: Mapping[str, Any],
        classes: Classes | None,
    ) -> None:
        super().__init__(meter, context.passes, range(context.steps), classes)
        self.sums_update = meter.sums_brackets
        self._nesterov = nesterov
        drivers = {"charge_driver": _DRIVER} | ({"charge_cross_driver": _CROSS} if nesterov else {})
        self.update_variables = {name: variable(name, CHARGES) for name in drivers}
        for pair in drivers.values():
            context.passes.ask(meter.wanted_bracket(pair), range(context.steps), after=True)
        # Of a loop of the user's own, which may change them.
        self._settings = dict(settings)
        if settings:
            self.update_variables |= {"sgd_settings": _settings_variable(classes)}

    def observe_update(self, view: View) -> Mapping[str, Any]:
        # A step of learning rate 0 moves nothing, and nothing drives it.
        lr: Any = view.lr or float("inf")
        if self._classes is not None:
            lr = self._classes.rates(self._meter.is_translation.device)
        sums, update = self._passes.of(view, after=True), view.update_parts
        found: dict[str, Any] = {
            "charge_driver": self._meter.bracket(update, update, sums, _DRIVER) / (lr * lr)
        }
        if self._nesterov:
            cross = self._meter.bracket(update, view.memory_parts("velocity"), sums, _CROSS)
            found["charge_cross_driver"] = cross / -lr
        if self._settings:
            found["sgd_settings"] = _settings(self._settings, view, self._classes)
        return found


def _settings_variable(classes: Classes | None) -> Variable:
    return variable("sgd_settings", *([] if classes is None else [CLASS]), "setting")


def _settings(hyperparameters: Mapping[str, Any], view: View, classes: Classes | None) -> np.ndarray:
    """What SETTINGS names, in the step that is seen; shape (4,), of several classes (K, 4)."""
    if classes is not None:
        return classes.rows
    now = {**hyperparameters, **view.hyperparameters}
    return np.array([float(now[name]) for name in SETTINGS])


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
