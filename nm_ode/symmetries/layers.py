"""How large a layer's gradient is, and when it is rounding beside the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from nm_ode.parameters import Layout

FAINT = 1e-4
"""Of the whole gradient, below which a layer's own gradient is rounding to the tolerance."""


def faint_scale(layout: Layout, gradient: Tensor) -> dict[str, float]:
    """Layer → norm of its gradient, at least `FAINT` of the whole."""
    least = FAINT * float(gradient.norm())
    norms = layout.layer_norms(gradient)
    return {layer: max(float(norm), least) for layer, norm in zip(layout.layers, norms, strict=True)}


def layer_scale(layout: Layout, squares: Mapping[str, float], faint: float) -> dict[str, float]:
    """Layer → norm of its gradient, at least `faint` of the whole; from the squares of its parameters' norms."""
    layers: dict[str, float] = {}
    for slot in layout.slots:
        layers[slot.layer] = layers.get(slot.layer, 0.0) + squares[slot.name]
    least = faint * math.sqrt(sum(layers.values()))
    return {layer: max(math.sqrt(square), least) for layer, square in layers.items()}
