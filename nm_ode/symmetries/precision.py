"""In which dtype a loss is verified, and how closely its numbers agree there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from nm_ode.symmetries.check import TOLERANCE
from nm_ode.symmetries.layers import FAINT

LARGE = 30_000_000
"""Parameters above which a model is verified in its own float32, at one draw and without its Hessian."""


@dataclass(frozen=True)
class Precision:
    """What counts as equal.

    Attributes:
        dtype: of parameters, batch and what is computed of the graph.
        loss: relative difference of the model's loss and its graph's.
        gradient: the same of a parameter's gradient, relative to its layer's.
        constraint: relative residual of a symmetry's constraint.
        faint: of the whole gradient, below which a layer's own is rounding.
    """

    dtype: torch.dtype
    loss: float = 1e-9
    gradient: float = 1e-6  # some of torch's kernels hold constants (1/6) in float32
    constraint: float = TOLERANCE
    faint: float = FAINT


DOUBLE = Precision(torch.float64)
SINGLE = Precision(torch.float32, loss=1e-4, gradient=1e-3, constraint=1e-4, faint=1e-2)


def is_large(model: nn.Module) -> bool:
    """Is a copy of the model in float64 too much?"""
    return sum(parameter.numel() for parameter in model.parameters()) > LARGE


def precision_of(model: nn.Module, coarsest: torch.dtype) -> Precision:
    """Of a model's copy.

    Args:
        model: the copy.
        coarsest: dtype inside it.
    """
    single = any(p.dtype == torch.float32 for p in model.parameters())
    precision = SINGLE if single else DOUBLE
    if torch.finfo(coarsest).eps <= torch.finfo(precision.dtype).eps:
        return precision
    # Its graph is computed in the finer dtype, the model itself rounds to the coarser one.
    rounding = torch.finfo(coarsest).eps
    return Precision(
        precision.dtype,
        loss=max(precision.loss, 1e2 * rounding),
        gradient=max(precision.gradient, 1e3 * rounding),
        constraint=precision.constraint,
        faint=max(precision.faint, 1e-2),
    )
