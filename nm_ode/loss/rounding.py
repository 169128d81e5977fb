"""What rounding adds to a step along one direction: of theta itself, and of the gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nm_ode.loss.problem import Problem

_POINTS = 9
_ORDER = 4  # of the differences that leave the noise


def rounding_along(theta: Tensor, direction: Tensor) -> float:
    """Standard deviation of ⟨direction, error⟩ where each entry of theta is rounded to its nearest number.

    An error is taken to be evenly spread over the distance to the next number and independent of the others.

    Args:
        theta: shape (P,), in the dtype in which the run holds it.
        direction: shape (P,).
    """
    size = theta.abs()
    spacing = torch.nextafter(size, torch.full_like(size, math.inf)) - size
    return float((direction.double() * spacing.double()).norm()) / math.sqrt(12)


def gradient_rounding_along(problem: Problem, theta: Tensor, direction: Tensor) -> float:
    """Standard deviation of the rounding of ⟨direction, ∇L⟩ at theta: nine gradients on a short segment.

    Fourth differences leave nothing of what is smooth; those of noise of variance σ² have the variance σ² 8!/(4!)²
    (Moré & Wild 2011, §3). The segment is as short as its points are told apart well: a few hundred roundings of
    theta's own size between them.

    Args:
        theta, direction: shape (P,); the direction's norm does not matter.
    """
    along = direction.to(theta) / direction.norm()
    size = float(theta.norm()) or 1.0
    step = 300 * torch.finfo(theta.dtype).eps * size
    seen = [
        float(direction.to(theta).double() @ problem.grad(torch.add(theta, along, alpha=step * i)).double())
        for i in range(_POINTS)
    ]
    differences = torch.tensor(seen, dtype=torch.float64).diff(n=_ORDER)
    share = math.factorial(_ORDER) / math.sqrt(math.factorial(2 * _ORDER))
    return share * float(differences.square().mean().sqrt())
