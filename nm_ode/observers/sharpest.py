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
from nm_ode.observers.sharpnesses import Sharpnesses
from nm_ode.optimizers import StabilityLimit
from nm_ode.results import Variable, variable

_WEIGHTS = (1.0, -4.0, 6.0, -4.0)
"""Of the four thetas before; that of the last is 1. A fourth difference has little of what is smooth."""

_NEAR = 0.75
"""Of the limit of stability: below it an oscillation dies away too fast to matter."""


class SharpestDirection(Observer):
    """Of the eigenvector that `Sharpnesses` has found at the same step; docs/theory.md §4.11.

    - `sharpest_gradient` |⟨u, ∇L⟩|, weight decay in ∇L: over λ_max it is how far the run is from this direction's own
      minimum, and at the start the size of the transient along it.
    - `sharpest_oscillation` |⟨u, Δ⁴θ⟩|/16 of the run's last five thetas: the size of what changes its sign every step,
      two steps before. NaN in the first four steps.
    - Near the limit of stability and above it, NaN elsewhere: `sharpest_noise`, the standard deviation of what a step
      adds, the rounding of theta and of the gradient, or, over minibatches, what the step's batch really added;
      and `leaving_size` (−2⟨∇λ_max, ∇L⟩)^{1/2}/‖∇λ_max‖, NaN too where the path does not sharpen or the loss has no
      third derivative.
    """

    dim: str = "curvature_step"
    variables: Mapping[str, Variable] = {
        name: variable(name)
        for name in ("sharpest_gradient", "sharpest_noise", "sharpest_oscillation", "leaving_size")
    }

    def __init__(
        self, context: Context, sharpnesses: Sharpnesses, stability: StabilityLimit, lr: float
    ) -> None:
        self._problem, self._sharpnesses, self._stability = context.expected_problem, sharpnesses, stability
        self._share = stability.step / lr  # of the learning rate that curvature sees
        self._batches = context.grid is None or not context.grid.is_full_batch
        self._steps = frozenset(sharpnesses.steps(context))
        self._held: dict[int, Tensor] = {}

    def steps(self, context: Context) -> Collection[int]:
        return self._sharpnesses.steps(context)

    def constants(self) -> Mapping[str, float]:
        assert self._stability.momentum is not None
        return {
            "growth_momentum": self._stability.momentum,
            "growth_nesterov": float(self._stability.nesterov),
        }

    def memory(self) -> Mapping[str, Any]:
        return {"held": [[step, sums] for step, sums in self._held.items()]}

    def restore(self, memory: Mapping[str, Any]) -> None:
        self._held = {int(step): sums.to(self._problem.theta0.device) for step, sums in memory["held"]}

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
        direction = torch.from_numpy(np.asarray(found.vector)).to(view.theta)
        gradient = self._problem.grad(view.theta)
        noise = size = math.nan
        if found.normalised > _NEAR * self._stability.limit:
            noise, size = (
                self._noise(view, direction, gradient, found.lr),
                self._size(view, direction, gradient),
            )
        held = self._held.pop(view.step, None)
        seen = math.nan if held is None else abs(float(direction.double() @ held.add_(view.theta))) / 16
        decayed = gradient + self._stability.decay * view.theta
        return {
            "sharpest_gradient": abs(float(direction @ decayed)),
            "sharpest_noise": noise,
            "sharpest_oscillation": seen,
            "leaving_size": size,
        }

    def _noise(self, view: View, direction: Tensor, gradient: Tensor, lr: float) -> float:
        """Of a step; after the last, over minibatches, NaN."""
        rate = lr * self._share
        if self._batches and math.isnan(view.lr):
            return math.nan
        batch = abs(float(direction @ (view.gradient - gradient))) if self._batches else 0.0
        if batch > 0:
            return rate * batch
        rounding = rate * gradient_rounding_along(self._problem, view.theta, direction)
        return math.hypot(rounding, rounding_along(view.theta, direction))

    def _size(self, view: View, direction: Tensor, gradient: Tensor) -> float:
        try:
            change = self._problem.third_derivative(view.theta, direction).double()
        except NoSecondDerivative:
            return math.nan
        sharpening = -float(change @ (gradient + self._stability.decay * view.theta).double())
        norm = float(change.norm())
        return math.sqrt(2 * sharpening) / norm if sharpening > 0 and norm > 0 else math.nan
