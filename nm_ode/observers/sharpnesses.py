"""The largest eigenvalue of the Hessian at some steps of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.loss.spectrum import Sharpness, sharpness
from nm_ode.observers.base import Context, Observer, View
from nm_ode.optimizers import SERIES_LIMIT, Optimizer
from nm_ode.results import Variable, variable


@dataclass(frozen=True, eq=False)
class Measured:
    """Of one step.

    Attributes:
        vector: a unit eigenvector of λ_max.
        value, normalised: λ_max, and the same times the rate that multiplies it.
        lr: of the step.
        preconditioner: D; None for the identity.
    """

    vector: NDArray[np.float64]
    value: float
    normalised: float
    lr: float
    preconditioner: Tensor | None


class Sharpnesses(Observer):
    """`Curvature` at these steps; each Lanczos starts from the eigenvector before.

    Attributes:
        last: what was found last, for who observes after it.
    """

    dim: str = "curvature_step"
    variables: Mapping[str, Variable] = {
        name: variable(name) for name in ("sharpness", "normalised_sharpness", "hvp_evaluations")
    }

    def __init__(self, context: Context, optimizer: Optimizer, steps: Collection[int]) -> None:
        self._problem, self._optimizer, self._steps = context.expected_problem, optimizer, steps
        self._last: Sharpness | None = None
        self._lr = optimizer.lr
        self.last: Measured | None = None

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
        preconditioner = self._preconditioner(view)
        self._last = found = sharpness(
            self._problem,
            view.theta,
            preconditioner=preconditioner,
            decay=decay,
            v0=None if self._last is None else self._last.vector,
        )
        normalised = found.value * self._lr * (step / self._optimizer.lr)
        self.last = Measured(found.vector, found.value, normalised, self._lr, preconditioner)
        return {
            "sharpness": found.value,
            "normalised_sharpness": normalised,
            "hvp_evaluations": found.hvp_evaluations,
        }

    def _preconditioner(self, view: View) -> Tensor | None:
        if not self._optimizer.multiscale:
            return None  # and no gradient is spent to learn it
        return self._optimizer.preconditioner(view.state(), self._problem.grad(view.theta))
