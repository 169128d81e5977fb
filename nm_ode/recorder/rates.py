"""The learning rate of each parameter, where an optimiser has several groups of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nm_ode.observers import Observer, View
from nm_ode.observers.base import Coordinates
from nm_ode.parameters import Layout
from nm_ode.results import Variable, variable


class ParameterRates(Observer):
    """`parameter_lr`, at each step.

    Args:
        rates: gives one for each of the layout's slots.
    """

    variables: Mapping[str, Variable] = {"parameter_lr": variable("parameter_lr", "parameter")}

    def __init__(self, layout: Layout, rates: Callable[[], list[float]]) -> None:
        self._names, self._rates = layout.names, rates

    def coordinates(self) -> Coordinates:
        # Zarr v3 has a type for strings, none for numpy's '<U'.
        return {"parameter": ("parameter", np.array(self._names, dtype=object))}

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"parameter_lr": np.array(self._rates())}

    def memory(self) -> Mapping[str, Any]:
        return {}  # the rates are the optimiser's own

    def restore(self, memory: Mapping[str, Any]) -> None:
        pass
