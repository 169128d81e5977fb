"""The parameters themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nm_ode.observers.base import SAVED_STEP, Observer, View
from nm_ode.results import Variable, variable


class Trajectory(Observer):
    """`theta`, at the saved steps of a run and at all samples of a flow."""

    dim: str = SAVED_STEP
    variables: Mapping[str, Variable] = {"theta": variable("theta", "param")}

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"theta": view.theta}
