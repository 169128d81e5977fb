"""Along the sharpest direction of a run: what an oscillation begins from, how large it is, and when it is too large."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.loss import NoSecondDerivative
from nm_ode.loss.rounding import gradient_rounding_along, rounding_along
from nm_ode.observers.base import Context, Observer, View
from nm_ode.observers.sharpnesses import Measured, Sharpnesses
from nm_ode.optimizers import Optimizer, StabilityLimit
from nm_ode.results import Variable, variable

_WEIGHTS = (1.0, -4.0, 6.0, -4.0)
"""Of the four thetas before; that of the last is 1. A fourth difference has little of what is smooth."""

_SWING = 0.1  # of the gradient's norm

_NEAR = 0.75
"""Of the stability limit: below it an oscillation dies away too fast to matter."""


class SharpestDirection(Observer):
    """Of the eigenvector that `Sharpnesses` has found at the same step; docs/theory.md §4.11.

    Under a preconditioner D the vector v is that of D^{-1/2} H D^{-1/2}, u = D^{-1/2} v, and distances are those of
    D^{1/2} θ.

    - `sharpest_gradient` |⟨u, ∇L⟩|, weight decay in ∇L: over λ_max it is how far the run is from this direction's own
      minimum, and at the start the size of the transient along it.
    - `sharpest_oscillation` |⟨D^{1/2} v, Δ⁴θ⟩|/16 of the run's last five thetas: the size of what changes its sign
      every step, two steps before. NaN in the first four steps.
    - Near the stability limit and above it, NaN elsewhere: `sharpest_noise`, the standard deviation of what a step
      adds, the rounding of theta and of the gradient, or, over minibatches, what the step's batch really added;
      and `leaving_size` (−2⟨∇λ_max, ∇L⟩)^{1/2}/‖∇λ_max‖, NaN too where the path does not sharpen or the loss has no
      third derivative. Under a preconditioner what the path adds to λ_max is its change since the measured step before,
      and the oscillation takes from it by what it adds to D as well.
    """

    dim: str = "curvature_step"
    variables: Mapping[str, Variable] = {
        name: variable(name)
        for name in ("sharpest_gradient", "sharpest_noise", "sharpest_oscillation", "leaving_size")
    }

    def __init__(
        self, context: Context, sharpnesses: Sharpnesses, optimizer: Optimizer, stability: StabilityLimit
    ) -> None:
        self._problem, self._sharpnesses = context.expected_problem, sharpnesses
        self._optimizer, self._stability = optimizer, stability
        self._share = stability.step / optimizer.lr  # of the learning rate that curvature sees
        self._batches = context.grid is None or not context.grid.is_full_batch
        self._steps = frozenset(sharpnesses.steps(context))
        self._held: dict[int, Tensor] = {}
        self._before = (-1, math.nan)

    def steps(self, context: Context) -> Collection[int]:
        return self._sharpnesses.steps(context)

    def constants(self) -> Mapping[str, float]:
        assert self._stability.momentum is not None
        return {
            "growth_momentum": self._stability.momentum,
            "growth_nesterov": float(self._stability.nesterov),
        }

    def memory(self) -> Mapping[str, Any]:
        return {"held": [[step, sums] for step, sums in self._held.items()], "before": list(self._before)}

    def restore(self, memory: Mapping[str, Any]) -> None:
        self._held = {int(step): sums.to(self._problem.theta0.device) for step, sums in memory["held"]}
        step, value = memory["before"]
        self._before = (int(step), float(value))

    def follow(self, view: View) -> None:
        for before, weight in enumerate(reversed(_WEIGHTS), start=1):
            step = view.step + before
            if step in self._steps:
                if weight == _WEIGHTS[0]:
                    self._held[step] = view.theta.to(torch.float64, copy=True)
                elif step in self._held:
                    self._held[step].add_(view.theta.double(), alpha=weight)

    def observe(self, view: View) -> Mapping[str, Any]:
        found = self._sharpnesses.last
        assert found is not None
        vector = torch.from_numpy(np.asarray(found.vector)).to(view.theta)
        root = None if found.preconditioner is None else found.preconditioner.sqrt()
        along, of_theta = (vector, vector) if root is None else (vector / root, vector * root)
        gradient = self._problem.grad(view.theta)
        decayed = gradient + self._stability.decay * view.theta
        noise = size = math.nan
        if found.normalised > _NEAR * self._stability.limit:
            noise = self._noise(view, along, of_theta, gradient, found.lr)
            size = self._size(view, found, along, gradient, decayed)
        self._before = (view.step, found.value)
        held = self._held.pop(view.step, None)
        seen = math.nan if held is None else abs(float(of_theta.double() @ held.add_(view.theta))) / 16
        return {
            "sharpest_gradient": abs(float(along @ decayed)),
            "sharpest_noise": noise,
            "sharpest_oscillation": seen,
            "leaving_size": size,
        }

    def _noise(self, view: View, along: Tensor, of_theta: Tensor, gradient: Tensor, lr: float) -> float:
        """Of a step; after the last, over minibatches, NaN."""
        rate = lr * self._share
        if self._batches and math.isnan(view.lr):
            return math.nan
        batch = abs(float(along @ (view.gradient - gradient))) if self._batches else 0.0
        if batch > 0:
            return rate * batch
        rounding = rate * gradient_rounding_along(self._problem, view.theta, along)
        return math.hypot(rounding, rounding_along(view.theta, of_theta))

    def _size(self, view: View, found: Measured, along: Tensor, gradient: Tensor, decayed: Tensor) -> float:
        try:
            change = self._problem.third_derivative(view.theta, along)
        except NoSecondDerivative:
            return math.nan
        if found.preconditioner is None:
            return _balanced_size(-float(change.double() @ decayed.double()), float(change.norm()) ** 2 / 2)
        step, value = self._before
        sharpening = (found.value - value) / (view.step - step)
        by_loss = float((change.square() / found.preconditioner).sum()) * found.lr * self._share / 2
        return _balanced_size(sharpening, by_loss + self._by_preconditioner(view, found, along, gradient))

    def _by_preconditioner(self, view: View, found: Measured, along: Tensor, gradient: Tensor) -> float:
        """What an oscillation of size 1 takes from λ_max in a step, by what it adds to the preconditioner."""
        assert found.preconditioner is not None
        vector = torch.from_numpy(np.asarray(found.vector)).to(view.theta)
        swing = found.value * vector * found.preconditioner.sqrt() - self._stability.decay * along
        scale = _SWING * float(gradient.norm() / swing.norm())
        if not 0 < scale < math.inf:
            return math.nan
        state, swing = view.state(), scale * swing
        there, back, still = (
            self._optimizer.preconditioner(state, gradient + sign * swing) for sign in (1, -1, 0)
        )
        assert there is not None
        assert back is not None
        assert still is not None
        gained = ((there + back) / 2 - still) / still
        return found.value * float(vector.square() @ gained) / scale**2


def _balanced_size(sharpening: float, response: float) -> float:
    """At which what an oscillation takes from λ_max, `response` times its square, is what the path adds to it."""
    return math.sqrt(sharpening / response) if sharpening > 0 and response > 0 else math.nan
