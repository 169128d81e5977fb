"""How large a layer's gradient is, and when it is rounding beside the whole."""

from __future__ import annotations

from torch import Tensor

from nm_ode.parameters import Layout

FAINT = 1e-4
"""Of the whole gradient, below which a layer's own gradient is rounding to the tolerance."""


def faint_scale(layout: Layout, gradient: Tensor) -> dict[str, float]:
    """Layer → norm of its gradient, at least `FAINT` of the whole."""
    least = FAINT * float(gradient.norm())
    norms = layout.layer_norms(gradient)
    return {layer: max(float(norm), least) for layer, norm in zip(layout.layers, norms, strict=True)}
