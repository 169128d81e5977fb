"""The covariance of a minibatch's gradient, as a factor to draw noise from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nm_ode.data.batches import drawn_samples
from nm_ode.errors import ArgumentError
from nm_ode.loss.given import require_one_loss
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.operators import GradientCovariance
from nm_ode.loss.problem import Problem
from nm_ode.loss.reduction import require_mean_or_sum
from nm_ode.modes import in_own_modes

NoiseKind = Literal["diagonal", "low_rank"]
Estimator = Literal["samples", "batches"]
"""From the gradients of all samples, which is exact; or from those of drawn batches."""


@dataclass(frozen=True, eq=False, repr=False)
class GradientNoise:
    """Σ ≈ BᵀB, the covariance of the gradient on a batch of samples drawn with replacement.

    Attributes:
        factor: B, shape (r, P); or, diagonal, the standard deviations, shape (P,).
        total: the trace of Σ itself, or its estimate.
        batch_size: of the batches whose gradient has it.
        theta: where it was measured, shape (P,).
        loss: at theta over all samples; by it a flow knows that the noise is of its own problem.
        estimator: "samples", exact; or "batches".
        draws: how many batches were drawn; None with "samples".
        standard_error: of `total`, which the choice of the batches makes; 0 with "samples".
    """

    factor: Tensor
    total: float
    batch_size: int
    theta: Tensor
    loss: float
    estimator: Estimator = "samples"
    draws: int | None = None
    standard_error: float = 0.0

    def __repr__(self) -> str:
        return f"<GradientNoise: {self.kind}, of batches of {self.batch_size}, tr Σ = {self.total:.6g}>"

    @property
    def kind(self) -> NoiseKind:
        """ "diagonal" or "low_rank", by the factor's shape."""
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
    problem: Problem,
    theta: Tensor,
    batch_size: int,
    *,
    kind: NoiseKind = "low_rank",
    rank: int | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> GradientNoise:
    """Σ at theta for batches of independent samples, drawn with replacement (docs/theory.md §4.8 (iii)).

    The samples' covariance over the batch size; of a loss that sums over its samples, times the batch size. One
    gradient a sample. (`train` goes through the data epoch by epoch, without replacement: there a batch's gradient has
    (N−B)/(N−1) of it, and the batches of an epoch are not independent.)

    Args:
        problem: whose loss.
        theta: where, shape (P,).
        batch_size: B, of the batches.
        kind: "diagonal" keeps the variances alone; "low_rank" the `rank` largest directions, by a singular value
            decomposition of the samples' gradients; all of them (no more than samples) if rank is None.
        rank: how many.
        draws: estimate Σ from the gradients of so many batches instead, by their unbiased sample covariance. It is
            of rank draws − 1 at most. For a loss over a batch that is neither mean nor sum, this is the only way.
        seed: of the drawn batches.

    Returns:
        A `GradientNoise`: `factor` of shape (r, P) or (P,), `total` (the trace of Σ), `captured` …

    Raises:
        ArgumentError: a kind, batch size, rank or number of draws that does not exist.
        ProblemError: without draws, the loss over a batch is neither the mean nor the sum of its samples' losses, or
            the samples are augmented, of which there is no end; or the gradient is not finite.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> noise = nm_ode.gradient_noise(problem, problem.theta0, batch_size=16, rank=3)
        >>> noise.factor.shape, round(noise.captured, 2)
        (torch.Size([3, 11]), 0.63)
    """
    require_one_loss(problem)
    if kind not in ("diagonal", "low_rank"):
        raise ArgumentError(f"kind must be 'diagonal' or 'low_rank'; {kind!r} was given")
    n = problem.n_samples
    if not 1 <= batch_size <= n:
        raise ArgumentError(f"batch_size must be from 1 to {n}; {batch_size} was given")
    if draws is not None and draws < 2:
        raise ArgumentError(f"draws must be at least 2, for a covariance; {draws} was given")
    rows, of = (n, "samples") if draws is None else (draws, "drawn batches")
    if rank is not None and not 1 <= rank <= rows:
        raise ArgumentError(f"rank must be from 1 to {rows}, the number of {of}; {rank} was given")
    loss = float(problem.loss(theta))
    factor = (
        _of_samples(problem, theta, batch_size)
        if draws is None
        else _drawn(problem, theta, batch_size, draws, seed)
    )
    total, error = float(factor.square().sum()), 0.0
    if draws is not None:
        error = float(factor.square().sum(dim=1).std()) * math.sqrt(draws)
    if not (math.isfinite(loss) and math.isfinite(total)):
        raise ProblemError(
            f"at this theta the loss is {loss} and the trace of its gradients' covariance {total}: choose a theta "
            "where both are finite"
        )

    def noise(factor: Tensor) -> GradientNoise:
        at = theta.detach().to(problem.theta0).clone()
        how: Estimator = "samples" if draws is None else "batches"
        return GradientNoise(factor, total, batch_size, at, loss, how, draws, error)

    if kind == "diagonal":
        return noise(factor.square().sum(dim=0).sqrt())
    if rank is None:
        return noise(factor)
    _, values, directions = torch.linalg.svd(factor, full_matrices=False)
    return noise(values[:rank, None] * directions[:rank])


def _of_samples(problem: Problem, theta: Tensor, batch_size: int) -> Tensor:
    """A factor, shape (N, P), of the covariance of the mean or sum over a batch."""
    remedy = "give draws, the number of batches to estimate it from"
    if problem.augmentation is not None:
        raise ProblemError(
            f"the noise of a batch's gradient is not that of {problem.n_samples} samples: they are augmented "
            f"({problem.augmentation}), which adds to it; {remedy}"
        )
    reduction = require_mean_or_sum(
        problem.reduction,
        "the noise of a batch's gradient is not that of its samples",
        remedy,
    )
    scale = 1 / batch_size if reduction == "mean" else batch_size
    return GradientCovariance.at(problem, theta).deviations.mul_((scale / problem.n_samples) ** 0.5)


def _drawn(problem: Problem, theta: Tensor, batch_size: int, draws: int, seed: int) -> Tensor:
    """A factor, shape (draws, P), of the sample covariance of drawn batches' gradients."""
    generator = torch.Generator().manual_seed(seed)
    rows = problem.theta0.new_empty(draws, problem.layout.size)
    for row in rows:
        samples = drawn_samples(
            problem.n_samples, batch_size, generator, augmented=problem.augmentation is not None
        )
        problem.grad(theta, samples, out=row)
    return rows.sub_(rows.mean(dim=0)).div_(math.sqrt(draws - 1))
