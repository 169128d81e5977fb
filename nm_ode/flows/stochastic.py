"""The stochastic modified equation: a diffusion that SGD's distribution follows (docs/theory.md §4.8 (iii))."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nm_ode.flows.base import (
    Descent,
    FlowError,
    as_order,
    regularised_gradient,
    regularised_hvp,
    require_plain,
)
from nm_ode.loss import Problem
from nm_ode.loss.given import require_one_loss
from nm_ode.loss.noise import GradientNoise

_SAME_LOSS = 1e-5  # relative: a loss at one theta, by a problem that is built again


@dataclass(frozen=True, eq=False)
class StochasticModifiedFlow:
    """dθ = −∇(L + (η/4)‖∇L‖²) dt + √η Σ^{1/2} dW, with L + (λ/2)‖θ‖² for L; order 1 leaves the second term out.
    See docs/theory.md §4.8, eq. (4.8).

    Compared with SGD in distribution, never path by path (Li, Tai, E 2019, §3; order 2 is their second-order equation):
    with runs of `sgd_ensemble`, whose batches are drawn with replacement at one learning rate. Σ is the covariance of a
    batch's gradient, taken constant in θ: `nm_ode.gradient_noise` at a point of the path. L is the loss that a batch
    has on average: of a sum, B/N of it.

    Args:
        problem: the loss.
        optimizer: plain descent.
        diffusion: what `nm_ode.gradient_noise` gives, which says at which theta and for which batches Σ is; or a factor
            of one's own: Σ's factor B, shape (r, P), or its diagonal's root, shape (P,), both without √η.
        order: weak order in lr, 1 or 2.

    Raises:
        FlowError: momentum, another optimiser, or another order; a diffusion that is no constant factor of P numbers,
            or is zero or not finite; the noise of another problem; a loss that over a batch is neither the mean nor the
            sum of its samples', or a sum with a factor of one's own, which does not say of which batches it is.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.05)
        >>> noise = nm_ode.gradient_noise(problem, problem.theta0, batch_size=16)
        >>> flow = nm_ode.StochasticModifiedFlow(problem, sgd, noise)
        >>> dict(nm_ode.solve_ensemble(flow, time=0.5, members=8).theta.sizes)
        {'member': 8, 'param': 11}
    """

    problem: Problem
    optimizer: Descent
    diffusion: GradientNoise | Tensor
    order: int = 2

    def __post_init__(self) -> None:
        require_one_loss(self.problem)
        require_plain(self.optimizer, "stochastic modified flow")
        object.__setattr__(self, "order", as_order(self.order, "the stochastic modified flow", (1, 2)))
        if not isinstance(self.diffusion, GradientNoise | Tensor):
            raise FlowError(
                "the diffusion must be what nm_ode.gradient_noise gives, or a factor as a tensor, constant in theta; "
                f"{type(self.diffusion).__name__} was given"
            )
        _require_factor(self._sigma, self.problem.layout.size)
        if self.noise is not None:
            _require_noise_of(self.problem, self.noise)
        if self.problem.reduction is None:
            raise FlowError(
                "the stochastic modified flow's drift is the gradient that batches have on average, and over a batch "
                "this loss is neither the mean nor the sum of its samples' losses (batch-dependent layers, class "
                "weights or ignored targets do this): that average is not known as a function of theta"
            )
        if self.problem.augmentation is not None:
            raise FlowError(
                "the stochastic modified flow's drift is the gradient that batches have on average, and this problem's "
                f"samples are augmented ({self.problem.augmentation}), over all of whose augmentations there is no "
                "loss: take a problem without"
            )
        if self.problem.reduction == "sum" and self.noise is None:
            raise FlowError(
                "the loss sums over its samples, so the drift depends on the batch size, which a bare factor does not "
                "say: give what nm_ode.gradient_noise returned"
            )

    @property
    def name(self) -> str:
        """Short, the name in a record."""
        return f"stochastic_{self.order}"

    @property
    def title(self) -> str:
        """For a reader."""
        return f"stochastic modified flow, order {self.order}"

    @property
    def noise(self) -> GradientNoise | None:
        """Where the diffusion comes from; None for a factor of one's own."""
        return self.diffusion if isinstance(self.diffusion, GradientNoise) else None

    @cached_property
    def factor(self) -> Tensor:
        """√η B: what multiplies the Wiener process's increments, in the problem's dtype and on its device."""
        return self._sigma.detach().to(self.problem.theta0) * math.sqrt(self.optimizer.lr)

    def drift(self, theta: Tensor) -> Tensor:
        """Of the mean, shape (P,)."""
        g = regularised_gradient(self._expected, self.optimizer, theta)
        if self.order == 1:
            return g.neg_()
        h_g = regularised_hvp(self._expected, self.optimizer, theta, g)
        return g.add_(h_g, alpha=self.optimizer.lr / 2).neg_()

    def drifts(self, thetas: Tensor) -> Tensor:
        """The same at M points, shape (M, P), many at once."""
        problem, optimizer = self._expected, self.optimizer
        g = problem.ensemble_loss_and_grad(thetas)[1]
        if optimizer.weight_decay:
            g.add_(thetas, alpha=optimizer.weight_decay)
        if self.order == 1:
            return g.neg_()
        h_g = problem.ensemble_hvp(thetas, g)
        if optimizer.weight_decay:
            h_g.add_(g, alpha=optimizer.weight_decay)
        return g.add_(h_g, alpha=optimizer.lr / 2).neg_()

    @property
    def _sigma(self) -> Tensor:
        return self.diffusion.factor if isinstance(self.diffusion, GradientNoise) else self.diffusion

    @cached_property
    def _expected(self) -> Problem:
        """Of the loss that a batch has on average."""
        if self.noise is None or self.problem.reduction != "sum":
            return self.problem
        return self.problem.scaled(self.noise.batch_size / self.problem.n_samples)


def _require_factor(factor: Tensor, n_theta: int) -> None:
    if factor.ndim not in (1, 2) or factor.shape[-1] != n_theta or not len(factor):
        raise FlowError(
            f"the diffusion has shape {tuple(factor.shape)}; this problem's has (directions, {n_theta}), or "
            f"({n_theta},) where it is diagonal"
        )
    if not (factor.is_floating_point() and bool(torch.isfinite(factor).all())):
        raise FlowError("the diffusion has entries that are no finite real numbers")
    if not factor.any():
        raise FlowError(
            "the diffusion is zero (every sample has the same gradient, or there is only one): there is no noise; "
            "solve the modified flow"
        )


def _require_noise_of(problem: Problem, noise: GradientNoise) -> None:
    loss = float(problem.loss(noise.theta))
    if not abs(loss - noise.loss) <= _SAME_LOSS * abs(noise.loss):
        raise FlowError(
            f"the noise was measured on a problem whose loss was {noise.loss:.6g} at that theta, and this problem's is "
            f"{loss:.6g} there: measure it on the flow's own problem"
        )
    if noise.batch_size > problem.n_samples:
        raise FlowError(
            f"the noise is of batches of {noise.batch_size}, and there are {problem.n_samples} samples"
        )
