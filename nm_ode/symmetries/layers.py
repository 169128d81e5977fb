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
    norms = layout.layer_norms(gradient)
    return _at_least({layer: float(norm) for layer, norm in zip(layout.layers, norms, strict=True)}, FAINT)


def layer_scale(layout: Layout, squares: Mapping[str, float], faint: float) -> dict[str, float]:
    """The same from the squares of its parameters' norms, at least `faint` of the whole."""
    layers: dict[str, float] = {}
    for slot in layout.slots:
        layers[slot.layer] = layers.get(slot.layer, 0.0) + squares[slot.name]
    return _at_least({layer: math.sqrt(square) for layer, square in layers.items()}, faint)


def _at_least(norms: Mapping[str, float], faint: float) -> dict[str, float]:
    least = faint * math.hypot(*norms.values())
    return {layer: max(norm, least) for layer, norm in norms.items()}
