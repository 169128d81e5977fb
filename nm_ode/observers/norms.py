"""Norms of gradients and updates, in total and of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nm_ode.observers.base import Context, Coordinates, Observer, View
from nm_ode.parameters import Layout
from nm_ode.results import Variable, variable


class Norms(Observer):
    """Along a run `grad_norm`, `update_norm` and both by layer, at each step; along a flow `grad_norm`."""

    def begin(self, context: Context) -> Sequence[Observer]:
        return [_GradientNorm()] if context.along_flow else [_LayerNorms(context.layout)]


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

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def coordinates(self) -> Coordinates:
        # Zarr v3 has a type for strings, none for numpy's '<U'.
        return {"layer": ("layer", np.array(list(self._layout.layers), dtype=object))}

    def observe(self, view: View) -> Mapping[str, Any]:
        of_layers = self._layout.layer_norms(view.gradient_parts)
        return {"grad_norm": torch.linalg.vector_norm(of_layers), "layer_grad_norm": of_layers}

    def observe_update(self, view: View) -> Mapping[str, Any]:
        of_layers = self._layout.layer_norms(view.update_parts)
        return {"update_norm": torch.linalg.vector_norm(of_layers), "layer_update_norm": of_layers}
