"""Symmetries by their definition: transform the parameters by a finite amount and look at the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nm_ode import Problem
from nm_ode.parameters import Layout
from nm_ode.symmetries import ChargeMeter, Symmetry


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


def carried(theta: Tensor, meter: ChargeMeter, symmetry: Symmetry, coefficients: Tensor) -> Tensor:
    """exp(Σ r_c ξ_c) θ for the charges of one symmetry of any kind: a finite transformation, by its series."""
    along = torch.zeros(meter.count, dtype=theta.dtype)
    along[meter.slices[symmetry.name]] = coefficients
    term = meter.apply(theta, along) + meter.shift(theta, along)
    moved = theta + term
    for n in range(2, 60):
        term = meter.apply(term, along) / n
        moved = moved + term
        if float(term.norm()) <= 1e-18 * float(moved.norm()):
            break
    return moved


def assert_finite_transformations_leave_the_loss(
    problem: Problem, found: Sequence[Symmetry], size: float = 0.3, rtol: float = 1e-9
) -> None:
    """Each symmetry that no ε breaks, at a theta and along a direction drawn at random, on the problem's data."""
    random = torch.Generator().manual_seed(5)
    noise = torch.randn(problem.layout.size, dtype=torch.float64, generator=random)
    theta = problem.theta0.double() + 0.1 * noise
    meter, loss = ChargeMeter(problem.layout, found), problem.loss(theta)
    for symmetry in found:
        if symmetry.epsilon == 0:
            drawn = torch.randn(symmetry.count, dtype=torch.float64, generator=random)
            moved = carried(theta, meter, symmetry, size * drawn / drawn.abs().max())
            assert (moved - theta).norm() > 1e-3 * size, symmetry.name
            torch.testing.assert_close(problem.loss(moved), loss, rtol=rtol, atol=1e-12, msg=symmetry.name)
