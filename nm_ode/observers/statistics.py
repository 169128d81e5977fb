"""Norms, inner products and angles of parameters, gradient, update and momentum, in total and of each layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nm_ode.arguments import as_count
from nm_ode.observers.base import OPEN_END, STEP, Context, Coordinates, Held, Observer, View
from nm_ode.observers.norms import layer_coordinates
from nm_ode.parameters import Layout, Parts, Vector
from nm_ode.passes import Pair, Passes, Wanted, totals
from nm_ode.results import Variable, variable

_KEPT, _COPY = "kept_gradient", "copy of the gradient"
_THETA, _ALONG, _SQUARE, _SUCCESSIVE = (
    ("theta", "theta"),
    ("gradient", "theta"),
    ("gradient", "gradient"),
    ("gradient", _KEPT),
)
_KEPT_SQUARE = (_KEPT, _KEPT)
_UPDATE, _MOVED, _DESCENT = ("update", "update"), ("theta", "update"), (_KEPT, "update")

_ROUNDING, _TINY = 1e-4, 1e-30  # by which sums of the same squares may differ


@dataclass(frozen=True)
class Statistics(Observer):
    """Norms and inner products at each step, of all parameters and (with `layer_` before the name) of each layer.

    Before the step: `theta_norm` ‖θ‖, `theta_gradient` ⟨θ, g⟩, `gradient_cosine` of the angle between g and the
    gradient of the record before (with `every` = 1 of the step before; NaN at the first, or where one of them is zero).
    Of the step: `theta_update` ⟨θ, Δθ⟩, `gradient_update` ⟨g, Δθ⟩, `momentum_norm` ‖v‖ after it. ‖g‖ and ‖Δθ‖ are in
    every run. Along a flow: `theta_norm` and `theta_gradient`.

    The products are summed in the parameters' precision, some 10⁵ at a time, and these sums in float64.

    Args:
        every: from one step at which they are recorded to the next.
        momentum: the name of v in the optimiser's memory. "auto": SGD's velocity or Adam's first moment, and nothing
            for an optimiser that nm_ode does not know; then it is the name in that one's own state, `momentum_buffer`
            say. None: not recorded.
        keep_gradient: whether to keep the gradient, P numbers, from record to record, which the cosine and
            `gradient_update` need. In a loop of one's own whose `zero_grad` sets gradients to None, its own tensors are
            held, and where their norms change the two are NaN; elsewhere they are copied.

    Raises:
        ArgumentError: `every` is no whole number above 0.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1, momentum=0.9)
        >>> run = nm_ode.train(problem, sgd, steps=9, observe=[nm_ode.Statistics()])
        >>> run.theta_norm.shape, run.layer_theta_norm.dims, "momentum_norm" in run
        ((9,), ('step', 'layer'), True)
    """

    every: int = 1
    momentum: str | None = "auto"
    keep_gradient: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", as_count(self.every, "every"))

    def begin(self, context: Context) -> Sequence[Observer]:
        if context.along_flow:
            return [_OfState(context.layout, context.passes, range(OPEN_END))]
        name = _momentum_of(context) if self.momentum == "auto" else self.momentum
        steps = range(0, context.steps, self.every)
        return [_OfSteps(context.layout, context.passes, steps, name, self.keep_gradient)]


def _momentum_of(context: Context) -> str | None:
    """The name of what an optimiser of nm_ode's remembers of the gradients before."""
    if context.optimizer is None:
        return None
    names = context.optimizer.state_layout(context.layout.size).names
    return next((name for name in ("velocity", "exp_avg") if name in names), None)


class _OfState(Observer):
    """What a state and its gradient have."""

    def __init__(self, layout: Layout, passes: Passes, steps: range) -> None:
        self._layout, self._passes, self._steps = layout, passes, steps
        self.dim = STEP if steps.step == 1 else "statistics_step"
        self.variables = _with_layers("theta_norm", "theta_gradient")
        passes.ask(totals(_THETA, _ALONG), steps)

    def steps(self, context: Context) -> Collection[int]:
        return self._steps

    def coordinates(self) -> Coordinates:
        return layer_coordinates(self._layout)

    def observe(self, view: View) -> Mapping[str, Any]:
        found = self._passes.of(view).totals
        return self._norm("theta_norm", found[_THETA]) | self._sum("theta_gradient", found[_ALONG])

    def _sum(self, name: str, of_slots: Tensor) -> dict[str, Tensor]:
        return {name: of_slots.sum(), f"layer_{name}": self._layout.sum_layers(of_slots)}

    def _norm(self, name: str, squares: Tensor) -> dict[str, Tensor]:
        return {key: value.sqrt() for key, value in self._sum(name, squares).items()}


class _OfSteps(_OfState):
    """What a step has beside."""

    sums_update = True

    def __init__(
        self, layout: Layout, passes: Passes, steps: range, momentum: str | None, keep_gradient: bool
    ) -> None:
        super().__init__(layout, passes, steps)
        self._square: Pair | None = None if momentum is None else (momentum, momentum)
        self._kept: Tensor | list[Tensor] | None = None
        self._held: Held | None = None  # then `_kept` is the loop's, and nobody writes to it
        self._next: Held | None = None
        self._left = False  # did the loop leave gradients as they were, before it was gone on with?
        self._copy: Vector | None = None
        self._asked: View | None = None
        self._kept_squares: Tensor | None = None
        self._keep = keep_gradient
        if keep_gradient:
            self.variables = {**self.variables, **_with_layers("gradient_cosine")}
            passes.know(_KEPT, self._kept_gradient, after="gradient")
            passes.know(_COPY, self._room_for_copy)
            passes.ask(totals(_SQUARE, _SUCCESSIVE), steps)
            passes.ask(Wanted(copies=frozenset({("gradient", _COPY)})), steps, when=self._copies)
            for after in (False, True):
                passes.ask(totals(_KEPT_SQUARE), steps, after=after, when=_in_a_loop)
        moved = [_UPDATE, _MOVED]
        names = ["theta_update"]
        if keep_gradient:
            moved.append(_DESCENT)
            names.append("gradient_update")
        if self._square is not None:
            moved.append(self._square)
            names.append("momentum_norm")
        self.update_variables = _with_layers(*names)
        passes.ask(totals(*moved), steps, after=True)

    def observe(self, view: View) -> Mapping[str, Any]:
        found = dict(super().observe(view))
        if self._keep:
            sums = self._passes.of(view).totals
            squares, name = sums[_SQUARE], "gradient_cosine"
            # Of no gradient before there is no angle; nor where a loop has come to write to what it left so far.
            known = self._kept_squares is not None and (self._held is None or self._held.is_as_left())
            before = self._kept_squares if known and self._kept_squares is not None else squares * math.nan
            here, there = self._norm(name, squares), self._norm(name, before)
            products = self._sum(name, sums[_SUCCESSIVE] + self._doubt(sums))
            for key, product in products.items():
                norms = here[key] * there[key]
                found[key] = product / norms + 0 * norms  # of norms too large for a number no angle is known
            self._kept_squares = squares
            self._keep_this(view)
        return found

    def observe_update(self, view: View) -> Mapping[str, Any]:
        sums = self._passes.of(view, after=True).totals
        # θ is after the step: ⟨θ, Δθ⟩ before it is less by ‖Δθ‖².
        found = self._sum("theta_update", sums[_MOVED] - sums[_UPDATE])
        if self._keep:
            found |= self._sum("gradient_update", sums[_DESCENT] + self._doubt(sums))
        if self._square is not None:
            found |= self._norm("momentum_norm", sums[self._square])
        return found

    def memory(self) -> Mapping[str, Any]:
        return {"gradient": self._kept, "squares": self._kept_squares, "left": self._held is not None}

    def restore(self, memory: Mapping[str, Any]) -> None:
        self._kept, self._kept_squares, self._held = memory["gradient"], memory["squares"], None
        self._left = bool(memory["left"])

    def _copies(self, view: View) -> bool:
        """Must the gradient of this step be copied to be kept?"""
        if self._asked is not view:
            self._asked, self._next = view, view.hold_gradient(left=self._left)
        return self._next is None

    def _kept_gradient(self, view: View) -> Vector:
        """Of the record before; before the first, zeros."""
        if self._kept is None:
            gradient = view.gradient_parts
            self._kept = torch.zeros_like(gradient) if isinstance(gradient, Tensor) else _zeros(gradient)
        return self._as_vector(self._kept)

    def _room_for_copy(self, view: View) -> Vector:
        """Where this one goes: over that of before, unless it is the loop's."""
        if self._held is None:
            self._copy = self._kept_gradient(view)
        else:
            self._copy = self._as_vector(_zeros(view.gradient_parts))
        return self._copy

    def _keep_this(self, view: View) -> None:
        self._held = None if self._copies(view) else self._next
        if self._held is not None:
            self._kept = self._held.tensors
        elif isinstance(self._copy, Parts):
            self._kept = self._copy.tensors

    def _doubt(self, sums: Mapping[Pair, Tensor]) -> Tensor | float:
        """0, and NaN where what is kept has other norms than the gradient had: somebody has written to it."""
        now, before = sums.get(_KEPT_SQUARE), self._kept_squares
        if now is None or before is None:
            return 0.0
        differs = ((now - before).abs() > _ROUNDING * before + _TINY).any()
        if self._held is not None and now.device.type == "cpu" and bool(differs):
            self._held.give_up()
        return torch.where(differs, math.nan, 0.0)

    def _as_vector(self, kept: Tensor | list[Tensor]) -> Vector:
        return kept if isinstance(kept, Tensor) else Parts(self._layout.slots, kept, kept[0])


def _in_a_loop(view: View) -> bool:
    """Is the gradient one of a user's own tensors?"""
    return isinstance(view.gradient_parts, Parts)


def _zeros(gradient: Vector) -> list[Tensor]:
    assert isinstance(gradient, Parts)
    return [torch.zeros_like(one) for one in gradient.tensors]


def _with_layers(*names: str) -> dict[str, Variable]:
    return {name: variable(name) for name in names} | {
        f"layer_{name}": variable(f"layer_{name}", "layer") for name in names
    }
