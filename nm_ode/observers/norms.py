"""Norms of gradients and updates, in total and of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nm_ode.observers.base import Context, Coordinates, Observer, View
from nm_ode.parameters import Layout
from nm_ode.passes import Passes, totals
from nm_ode.results import Variable, variable

_GRADIENT, _UPDATE = ("gradient", "gradient"), ("update", "update")


class Norms(Observer):
    """Along a run `grad_norm`, `update_norm` and both by layer, at each step; along a flow `grad_norm`."""

    def begin(self, context: Context) -> Sequence[Observer]:
        return (
            [_GradientNorm()]
            if context.along_flow
            else [_LayerNorms(context.layout, context.passes, range(context.steps))]
        )


class _GradientNorm(Observer):
    variables: Mapping[str, Variable] = {"grad_norm": variable("grad_norm")}

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"grad_norm": torch.linalg.vector_norm(view.gradient)}


class _LayerNorms(Observer):
    variables: Mapping[str, Variable] = {
        "grad_norm": variable("grad_norm"),
        "layer_grad_norm": variable("layer_grad_norm", "layer"),
    }
    update_variables: Mapping[str, Variable] = {
        "update_norm": variable("update_norm"),
        "layer_update_norm": variable("layer_update_norm", "layer"),
    }
    sums_update = True

    def __init__(self, layout: Layout, passes: Passes, steps: range) -> None:
        self._layout, self._passes = layout, passes
        passes.ask(totals(_GRADIENT), steps)
        passes.ask(totals(_UPDATE), steps, after=True)

    def coordinates(self) -> Coordinates:
        return layer_coordinates(self._layout)

    def observe(self, view: View) -> Mapping[str, Any]:
        squares = self._passes.of(view).totals[_GRADIENT]
        return {
            "grad_norm": squares.sum().sqrt(),
            "layer_grad_norm": self._layout.sum_layers(squares).sqrt(),
        }

    def observe_update(self, view: View) -> Mapping[str, Any]:
        squares = self._passes.of(view, after=True).totals[_UPDATE]
        return {
            "update_norm": squares.sum().sqrt(),
            "layer_update_norm": self._layout.sum_layers(squares).sqrt(),
        }


def layer_coordinates(layout: Layout) -> Coordinates:
    """The layers' names."""
    # Zarr v3 has a type for strings, none for numpy's '<U'.
    return {"layer": ("layer", np.array(list(layout.layers), dtype=object))}
