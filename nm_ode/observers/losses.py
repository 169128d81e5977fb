"""The loss: of each step's batch, and of all samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nm_ode.observers.base import SAVED_STEP, Context, Observer, View
from nm_ode.results import Variable, variable


@dataclass(frozen=True)
class Losses(Observer):
    """Along a run `loss` of each step's batch and `full_loss` at saved steps; along a flow `loss`, of all samples.

    Args:
        full: is the loss over all samples wanted along a run?
    """

    full: bool = True

    def begin(self, context: Context) -> Sequence[Observer]:
        if context.along_flow:
            return [_FlowLoss()]
        knows_it = self.full and context.given_problem is not None
        return [_BatchLoss(), _FullLoss()] if knows_it else [_BatchLoss()]


class _BatchLoss(Observer):
    variables: Mapping[str, Variable] = {"loss": variable("loss")}

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"loss": view.loss}


class _FullLoss(Observer):
    dim: str = SAVED_STEP
    variables: Mapping[str, Variable] = {"full_loss": variable("full_loss")}

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"full_loss": view.full_loss}


class _FlowLoss(Observer):
    variables: Mapping[str, Variable] = {"loss": variable("loss")}

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"loss": view.full_loss}
