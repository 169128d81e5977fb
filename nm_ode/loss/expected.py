"""What the batches of a run have in expectation: the loss that a full-batch flow beside them follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from nm_ode.data import sample_batches
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.problem import Problem
from nm_ode.results import TimeGrid

_EPOCHS = (
    4,
    64,
)  # over which the mean gradient of batches is taken, where no theory gives it: at least, and at most
_SAMPLES = 2**14  # that are enough for it, in epochs beyond the fewest
_PRECISION = (0.1, 0.01)  # with which it must be known, over the distance and over the gradient


@dataclass(frozen=True)
class BatchBias:
    """How far the mean gradient of batches is from the gradient over all samples, relative to that.

    Attributes:
        standard_error: what the choice of the batches makes of it.
    """

    distance: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class ExpectedLoss:
    """Over a batch a loss is on average what it is over all samples, times a share; or something else.

    Attributes:
        problem: of the share.
        share: 1 for a mean; for a sum, the part of the samples that a step of the run takes.
        bias: of a loss that is neither, or over augmented samples.
    """

    problem: Problem
    share: float = 1.0
    bias: BatchBias | None = None


def expected_loss(problem: Problem, grid: TimeGrid, theta: Tensor) -> ExpectedLoss:
    """Of a run's batches (docs/theory.md §4.8).

    Over augmented samples a loss is another one: its batches' mean gradient is measured, as that of a loss which is
    neither mean nor sum.

    A sum over a batch of B of N samples is on average B/N of the sum over all: of a run, the mean over its steps, each
    weighed with its time, for the last batch of an epoch may be smaller.

    Args:
        theta: where the bias of a loss that is neither mean nor sum is measured, by some epochs of gradients.

    Raises:
        ProblemError: a sum over other samples than the run's, or samples that were augmented otherwise.
    """
    if grid.batch_size == "unknown" and problem.reduction != "mean":
        what = (
            "a sum over its samples" if problem.reduction == "sum" else "neither mean nor sum of its samples'"
        )
        raise ProblemError(
            f"the loss is {what}, and which samples the steps of this recorded loop took is not known: take a loss "
            "that is a mean, or Recorder(full_batch=True) if each step saw all samples"
        )
    of_batches, share = share_of_batches(problem, grid)
    if not isinstance(grid.batch_size, int) or not (problem.reduction is None or grid.augmentation):
        return ExpectedLoss(of_batches, share)
    if otherwise := augmented_otherwise(problem, grid):
        raise ProblemError(
            f"{otherwise}, so that what the run's batches have on average cannot be measured: give the run's own "
            "problem"
        )
    augmented = bool(grid.augmentation)
    bias = batch_bias(problem, theta, grid.batch_size, grid.seed, share=share, augmented=augmented)
    return ExpectedLoss(of_batches, share, bias)


def augmented_otherwise(problem: Problem, grid: TimeGrid) -> str:
    """How a problem's samples differ from those of a run's steps by their augmentation; empty if they do not."""
    here = problem.augmentation
    if not grid.augmentation or str(here or "") == grid.augmentation:
        return ""
    return (
        f"the run's samples were augmented ({grid.augmentation}), and those of the flow's problem are "
        f"{f'otherwise ({here})' if here else 'not'}"
    )


def share_of_batches(problem: Problem, grid: TimeGrid) -> tuple[Problem, float]:
    """The part of the loss that a run's batches have on average, and how large it is: all of it, unless it is a sum.

    Raises:
        ProblemError: a sum over other samples than the run's.
    """
    if grid.is_full_batch or problem.reduction != "sum":
        return problem, 1.0
    if grid.n_samples != problem.n_samples:
        raise ProblemError(
            f"the loss sums over its samples, {problem.n_samples}, and the run on batches has {grid.n_samples}: which "
            "share of the loss a step takes is not known; give the run's own problem"
        )
    share = grid.mean_batch_size / grid.n_samples
    return (problem, share) if share == 1 else (problem.scaled(share), share)


def batch_bias(
    problem: Problem,
    theta: Tensor,
    batch_size: int,
    seed: int,
    *,
    share: float = 1.0,
    augmented: bool = False,
) -> BatchBias:
    """Measured at theta over the first epochs of a run with this seed; each costs about as much as a full gradient.

    As many epochs as make the standard error a tenth of the distance, or a hundredth of the gradient; from 4 to 64, and
    beyond 4 no more than take some 16,000 samples.

    Args:
        share: of the gradient over all samples, which a batch of a sum has on average.
        augmented: are the samples of the run?
    """
    full = problem.grad(theta).mul_(share)
    size = float(full.norm())
    if not size:
        return BatchBias(math.nan, math.nan)
    per_epoch = -(-problem.n_samples // batch_size)
    batches = sample_batches(problem.n_samples, batch_size, seed, augmented=augmented)
    gradient, epoch = torch.empty_like(full), torch.empty_like(full)
    mean, spread = torch.zeros_like(full), 0.0  # Welford's recurrence: one epoch in memory at a time
    k, distance, error = 0, 0.0, math.inf
    most = min(_EPOCHS[1], _SAMPLES // problem.n_samples)
    while k < _EPOCHS[0] or (k < most and error > max(_PRECISION[0] * distance, _PRECISION[1])):
        k += 1
        epoch.zero_()
        for batch in islice(batches, per_epoch):
            epoch += problem.grad(theta, batch, out=gradient)
        before = epoch.div_(per_epoch) - mean
        mean += before / k
        spread += float(before @ (epoch - mean))
        if k > 1:
            error = math.sqrt(max(spread, 0.0) / (k * (k - 1))) / size
            apart = float((mean - full).norm()) / size
            distance = math.sqrt(max(apart**2 - error**2, 0.0))  # without what the choice of the batches adds
    return BatchBias(distance, error)
