"""Symmetries by their definition: transform the parameters by a finite amount and look at the loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nm_ode.parameters import Layout
from nm_ode.symmetries import Symmetry


def transformed(theta: Tensor, layout: Layout, symmetry: Symmetry, charge: int, alpha: float) -> Tensor:
    """ψ(θ, α) of one charge, entry by entry: shifted by α, or multiplied by e^{α·weight}."""
    moved = theta.clone()
    for part in symmetry.parts:
        piece = part.view.of(moved, layout[part.parameter].start)
        shape = [n if dim in part.axes else 1 for dim, n in enumerate(part.view.shape)]
        takes_part = (part.index == charge).double().reshape(shape)
        if symmetry.kind == "translation":
            piece.add_(alpha * part.weight * takes_part)
        else:
            piece.mul_(torch.exp(alpha * part.weight * takes_part))
    return moved


def mixed(theta: Tensor, layout: Layout, symmetry: Symmetry, matrix: Tensor) -> Tensor:
    """W_A → M W_A, W_B → W_B M⁻¹ for any M; shape (blocks, d, d)."""
    moved = theta.clone()
    inverse_transposed = torch.linalg.inv(matrix).mT
    for part in symmetry.parts:
        piece = part.view.of(moved, layout[part.parameter].start)
        piece.copy_((matrix if part.weight > 0 else inverse_transposed) @ piece)
    return moved


def generator(theta: Tensor, transform: Callable[[float], Tensor], step: float = 1e-6) -> Tensor:
    """ξ(θ) = ∂ψ/∂α at the identity by central differences."""
    return (transform(step) - transform(-step)) / (2 * step)
