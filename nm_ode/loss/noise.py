"""The covariance of a minibatch's gradient, as a factor to draw noise from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nm_ode.errors import ArgumentError
from nm_ode.loss.batching import Reduction
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.operators import GradientCovariance
from nm_ode.loss.problem import Problem
from nm_ode.modes import in_own_modes

NoiseKind = Literal["diagonal", "low_rank"]


@dataclass(frozen=True, eq=False)
class GradientNoise:
    """Σ ≈ BᵀB, the covariance of the gradient on a batch.

    Attributes:
        factor: B, shape (r, P); or, diagonal, the standard deviations, shape (P,).
        total: the trace of Σ itself.
        batch_size: of the batches whose gradient has it.
    """

    factor: Tensor
    total: float
    batch_size: int

    @property
    def kind(self) -> NoiseKind:
        return "diagonal" if self.factor.ndim == 1 else "low_rank"

    @property
    def captured(self) -> float:
        """Share of the trace of Σ that the factor has."""
        return float(self.factor.square().sum()) / self.total if self.total else 1.0

    @property
    def directions(self) -> int:
        """Independent Gaussians a draw takes."""
        return len(self.factor)

    def along(self, normal: Tensor) -> Tensor:
        """Bᵀξ for standard normal ξ, shape (..., directions) to (..., P)."""
        return along(self.factor, normal)


def along(factor: Tensor, normal: Tensor) -> Tensor:
    """Bᵀξ of a factor, shape (r, P), or of its diagonal's root, shape (P,)."""
    return normal * factor if factor.ndim == 1 else normal @ factor


@in_own_modes
def gradient_noise(
    problem: Problem, theta: Tensor, batch_size: int, *, kind: NoiseKind = "low_rank", rank: int | None = None
) -> GradientNoise:
    """Σ at theta for batches of independent samples, drawn with replacement.

    The samples' covariance over the batch size; of a loss that sums over its samples, times the batch size. One
    gradient a sample.

    Args:
        kind: "diagonal" keeps the variances alone; "low_rank" the `rank` largest directions, by a singular value
            decomposition of the samples' gradients; all of them (no more than samples) if rank is None.

    Raises:
        ArgumentError: a kind, batch size or rank that does not exist.
        ProblemError: the loss over a batch is neither the mean nor the sum of its samples' losses.
    """
    if kind not in ("diagonal", "low_rank"):
        raise ArgumentError(f"kind must be 'diagonal' or 'low_rank'; {kind!r} was given")
    n = problem.n_samples
    if not 1 <= batch_size <= n:
        raise ArgumentError(f"batch_size must be from 1 to {n}; {batch_size} was given")
    if rank is not None and not 1 <= rank <= n:
        raise ArgumentError(f"rank must be from 1 to {n}, the number of samples; {rank} was given")
    scale = 1 / batch_size if _reduction(problem) == "mean" else batch_size
    factor = GradientCovariance.at(problem, theta).deviations.mul_((scale / n) ** 0.5)
    total = float(factor.square().sum())
    if kind == "diagonal":
        return GradientNoise(factor.square().sum(dim=0).sqrt(), total, batch_size)
    if rank is None:
        return GradientNoise(factor, total, batch_size)
    _, values, directions = torch.linalg.svd(factor, full_matrices=False)
    return GradientNoise(values[:rank, None] * directions[:rank], total, batch_size)


def _reduction(problem: Problem) -> Reduction:
    reduction = problem.reduction
    if reduction is None:
        raise ProblemError(
            "the noise of a batch's gradient is not that of its samples: over a batch the loss is neither the mean "
            "nor the sum of its samples' losses (batch-dependent layers, class weights or ignored targets do this)"
        )
    return reduction
