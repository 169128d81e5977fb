"""The run's own average over three steps, made while it goes on: for runs of which not every step is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nm_ode.observers.base import SAVED_STEP, Context, Observer, View
from nm_ode.results import Variable, variable


@dataclass(frozen=True)
class Averages(Observer):
    """Along a run `theta_average` (θ_{k−1} + 2θ_k + θ_{k+1})/4 at saved steps; at every step the distance from it,
    `oscillation_norm`, and `oscillation_cosine` of the angle to that of the step before: −1 where the run alternates.
    See docs/theory.md §5.1.

    Past the edge of stability a run is an oscillation about a slow path, which the average is, and which the central
    flow predicts: `compare` holds flows against it. A run that keeps theta at every step has the average anyway; with
    this one it takes `save_every` and two vectors more in memory. All are NaN before the first and after the last step,
    which have one neighbour alone. With a `Sketch` in place of theta keep every step instead, which takes little.
    Nothing is observed along a flow.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.247), steps=60, save_every=20, observe=[nm_ode.Averages()])
        >>> run.theta_average.shape, round(float(run.oscillation_cosine[50]), 1)
        ((4, 11), -1.0)
    """

    def begin(self, context: Context) -> Sequence[Observer]:
        if context.along_flow:
            return []
        before = _Before()
        return [_Mean(before), _Distance(before)]


class _Before:
    """The update of the step before and four times what the run was from its average there; None at the first."""

    update: Tensor | None = None
    swing: Tensor | None = None


class _Mean(Observer):
    dim: str = SAVED_STEP
    update_variables: Mapping[str, Variable] = {"theta_average": variable("theta_average", "param")}

    def __init__(self, before: _Before) -> None:
        self._before = before

    def memory(self) -> Mapping[str, Any]:
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """What it shares is the other's to remember."""

    def observe_update(self, view: View) -> Mapping[str, Any]:
        after, update, before = view.theta, view.update, self._before.update
        if before is None:
            return {"theta_average": torch.full_like(after, torch.nan)}
        return {"theta_average": after - (3 * update + before) / 4}


class _Distance(Observer):
    """Observes every step, after `_Mean`, and so is the one that keeps the update for the next."""

    update_variables: Mapping[str, Variable] = {
        name: variable(name) for name in ("oscillation_norm", "oscillation_cosine")
    }

    def __init__(self, before: _Before) -> None:
        self._before = before

    def memory(self) -> Mapping[str, Any]:
        return {"update": self._before.update, "swing": self._before.swing}

    def restore(self, memory: Mapping[str, Any]) -> None:
        self._before.update, self._before.swing = memory["update"], memory["swing"]

    def observe_update(self, view: View) -> Mapping[str, Any]:
        update, before, last = view.update, self._before.update, self._before.swing
        self._before.update = update.clone()
        if before is None:
            return {"oscillation_norm": torch.nan, "oscillation_cosine": torch.nan}
        self._before.swing = swing = before.sub_(update)
        norm = torch.linalg.vector_norm(swing)
        if last is None:
            return {"oscillation_norm": norm / 4, "oscillation_cosine": norm * torch.nan}
        cosine = swing @ last / (norm * torch.linalg.vector_norm(last))
        return {"oscillation_norm": norm / 4, "oscillation_cosine": cosine}
