"""Sharpness along a run: how close the learning rate is to where steps stop following a flow, or diverge."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nm_ode.arguments import as_count
from nm_ode.loss.spectrum import Sharpness, sharpness
from nm_ode.observers.base import Context, Observer, View, spread_steps
from nm_ode.optimizers import SERIES_LIMIT, Optimizer
from nm_ode.results import Variable, variable


@dataclass(frozen=True)
class Curvature(Observer):
    """Along a run, at some steps, along `curvature_step`; the tree keeps it in `/discrete/curvature`.

    `sharpness` is λ_max of the Hessian that the optimiser sees (preconditioned for Adam, weight decay added; over
    minibatches of a loss that sums over its samples, of the part of the loss that a batch has on average), and
    `normalised_sharpness` the same times the learning rate that it is multiplied by, which is to be compared with the
    constants `series_limit` (the modified flow) and, where the optimiser's is known, `stability_limit` (the run).

    Args:
        points: at how many steps to measure, spread over the run. Nothing is observed along a flow.
    """

    points: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", as_count(self.points, "points"))

    def begin(self, context: Context) -> Sequence[Observer]:
        if context.along_flow or context.optimizer is None:
            return []
        return [Sharpnesses(context, context.optimizer, spread_steps(context.steps, self.points))]


class Sharpnesses(Observer):
    """`Curvature` at these steps; each Lanczos starts from the eigenvector before."""

    dim: str = "curvature_step"
    variables: Mapping[str, Variable] = {
        name: variable(name) for name in ("sharpness", "normalised_sharpness", "hvp_evaluations")
    }

    def __init__(self, context: Context, optimizer: Optimizer, steps: Collection[int]) -> None:
        self._problem, self._optimizer, self._steps = context.expected_problem, optimizer, steps
        self._last: Sharpness | None = None
        self._lr = optimizer.lr

    def steps(self, context: Context) -> Collection[int]:
        return self._steps

    def constants(self) -> Mapping[str, float]:
        stability = self._optimizer.stability
        known = {} if stability is None else {"stability_limit": stability.limit}
        return {"series_limit": SERIES_LIMIT, **known}

    def memory(self) -> Mapping[str, Any]:
        return {"lr": self._lr, "last": None if self._last is None else self._last.vector}

    def restore(self, memory: Mapping[str, Any]) -> None:
        self._lr, last = memory["lr"], memory["last"]
        self._last = None if last is None else Sharpness(float("nan"), last, 0)

    def observe(self, view: View) -> Mapping[str, Any]:
        if view.lr == view.lr:  # after the last step the learning rate is that of the last
            self._lr = view.lr
        stability = self._optimizer.stability
        step, decay = (self._optimizer.lr, 0.0) if stability is None else (stability.step, stability.decay)
        self._last = found = sharpness(
            self._problem,
            view.theta,
            preconditioner=self._preconditioner(view),
            decay=decay,
            v0=None if self._last is None else self._last.vector,
        )
        return {
            "sharpness": found.value,
            "normalised_sharpness": found.value * self._lr * (step / self._optimizer.lr),
            "hvp_evaluations": found.hvp_evaluations,
        }

    def _preconditioner(self, view: View) -> Tensor | None:
        if not self._optimizer.multiscale:
            return None  # and no gradient is spent to learn it
        return self._optimizer.preconditioner(view.state(), self._problem.grad(view.theta))
