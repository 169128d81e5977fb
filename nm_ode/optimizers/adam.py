"""Adam and AdamW, with the step count of the bias correction as part of the state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nm_ode.optimizers.base import Optimizer, SecondMoment, StabilityLimit, StateLayout, has, plus_times
from nm_ode.optimizers.ranges import Fraction, NotNegative, Positive, require_in_range

_MEMORY = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Adam(Optimizer):
    """`torch.optim.Adam` as a map of the state (θ, m, v, k) (docs/theory.md §4.5, §4.6).

    d = g + λθ; m' = β1 m + (1−β1)d; v' = β2 v + (1−β2)d²; k' = k + 1;
    θ' = θ − η m̂ / (√v̂ + ε), m̂ = m'/(1 − β1^{k'}), v̂ = v'/(1 − β2^{k'}) (Kingma, Ba 2015, Algorithm 1).

    k is a real number, so that the map has a flow through it: with it the bias correction is a function of the
    state like all else. From k = 0 the flow is that of a map with a pole one step before (1 − β^{k+1} = 0 at
    k = −1), which differences follow only some ten steps later; see `comparison.defects`.

    Args:
        lr: learning rate η > 0.
        betas: β1, β2 in [0, 1).
        eps: ε > 0, or 0 where no gradient ever vanishes.
        weight_decay: λ ≥ 0, added to the gradient.

    Raises:
        ArgumentError: a value outside its range, in one sentence.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> adam = nm_ode.Adam(lr=0.01)
        >>> state = adam.init(torch.ones(2), torch.tensor([3.0, -4.0]))
        >>> state + adam.increment(state, torch.tensor([3.0, -4.0]))
        tensor([ 0.9900,  1.0100,  0.3000, -0.4000,  0.0090,  0.0160,  1.0000])
    """

    lr: Positive
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: NotNegative = 1e-8
    weight_decay: NotNegative = 0.0

    multiscale: ClassVar[bool] = True  # second moments are squares of gradients
    by_rows: ClassVar[bool] = True
    torch_memory: ClassVar = {name: name for name in _MEMORY}
    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_in_range(self)

    @property
    def stability(self) -> StabilityLimit:
        """2(1+β1) of η(1−β1) times the preconditioned sharpness (Cohen et al. 2022, §3, eq. 2).

        On the preconditioned curvature Adam is heavy ball with dampening β1. λ counts where it is part of the gradient.
        """
        beta = self.betas[0]
        return StabilityLimit(self.lr * (1 - beta), 2 * (1 + beta), self._coupled_decay, beta)

    @property
    def second_moment(self) -> SecondMoment | None:
        """None with momentum, and with a weight decay that is no part of the gradient."""
        if has(self.betas[0]) or (self.decoupled and has(self.weight_decay)):
            return None
        return SecondMoment(self.betas[1], self.eps, corrected=True)

    @property
    def _coupled_decay(self) -> float:
        return 0.0 if self.decoupled else self.weight_decay

    def state_layout(self, n_theta: int) -> StateLayout:
        """theta, first moment, second moment, step."""
        sizes = (n_theta, n_theta, n_theta, 1)
        return StateLayout(tuple(zip(("theta", *_MEMORY), sizes, strict=True)))

    def init(self, theta: Tensor, grad: Tensor) -> Tensor:
        """The empty state: m = v = 0, k = 0."""
        *rows, n = theta.shape
        return torch.cat([theta, theta.new_zeros(*rows, 1).expand(*rows, 2 * n + 1)], dim=-1)

    def increment(self, state: Tensor, grad: Tensor) -> Tensor:
        """Φ(z) − z; nothing is written to."""
        theta, mean, square, step = self.state_layout(grad.shape[-1]).split(state)
        direction = self._direction(theta, grad)
        (beta1, beta2), squared = self.betas, direction * direction
        # Not mean + what it gains: the sum's rounding is that of the larger moment, before or after.
        corrected_mean = (beta1 * mean + (1 - beta1) * direction) / _bias(beta1, step + 1)
        corrected_square = (beta2 * square + (1 - beta2) * squared) / _bias(beta2, step + 1)
        moved = corrected_mean.mul_(-self.lr).div_(corrected_square.sqrt_().add_(self.eps))
        if has(self.weight_decay) and self.decoupled:
            moved = plus_times(moved, -self.lr * self.weight_decay, theta)
        gained_mean = (direction - mean) * (1 - beta1)
        gained_square = squared.sub_(square).mul_(1 - beta2)
        return torch.cat([moved, gained_mean, gained_square, torch.ones_like(step)], dim=-1)

    def scale(self, state: Tensor, grad: Tensor) -> Tensor:
        """Of the moments, what they will be one step on."""
        square, root, step = self._one_step_on(state, grad)
        return torch.cat([torch.ones_like(grad), root, square + self.eps**2, torch.ones_like(step)])

    def preconditioner(self, state: Tensor, grad: Tensor) -> Tensor:
        """(√v̂ + ε)(1 − β1^k) of the step to come."""
        _, root, step = self._one_step_on(state, grad)
        return root * _bias(self.betas[0], step)

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The same optimiser as torch's own object."""
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return kind(parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)

    def to_torch(self, torch_optimizer: torch.optim.Optimizer, parameter: Tensor, state: Tensor) -> None:
        """Put moments and step into torch's optimiser of `parameter`."""
        _, mean, square, step = self.state_layout(parameter.numel()).split(state)
        torch_optimizer.state[parameter].update(
            exp_avg=mean.clone(), exp_avg_sq=square.clone(), step=step.detach().cpu().clone().squeeze(0)
        )

    def _direction(self, theta: Tensor, grad: Tensor) -> Tensor:
        return plus_times(grad, self._coupled_decay, theta) if has(self._coupled_decay) else grad

    def _one_step_on(self, state: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """v', √v̂' + ε and k' after the step to come."""
        theta, _, square, step = self.state_layout(len(grad)).split(state)
        square = square + (self._direction(theta, grad).square() - square) * (1 - self.betas[1])
        return square, (square / _bias(self.betas[1], step + 1)).sqrt() + self.eps, step + 1


@dataclass(frozen=True)
class AdamW(Adam):
    """`torch.optim.AdamW` as a map: Adam whose weight decay acts on θ by itself, θ − ηλθ − … (Loshchilov, Hutter 2019).

    Args:
        lr, betas, eps: as of `Adam`.
        weight_decay: λ ≥ 0; θ loses ηλθ at each step.

    Raises:
        ArgumentError: a value outside its range, in one sentence.

    Example:
        >>> import nm_ode
        >>> nm_ode.AdamW(lr=1e-3)
        AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)
        >>> nm_ode.AdamW(lr=-1.0)
        Traceback (most recent call last):
            ...
        nm_ode.errors.ArgumentError: lr must be a positive number; -1.0 was given
    """

    weight_decay: NotNegative = 1e-2
    decoupled: ClassVar[bool] = True


def _bias(beta: float | Tensor, step: Tensor) -> Tensor:
    """1 − β^step, exact also where it is small."""
    if not has(beta):
        return torch.ones_like(step)
    return -torch.expm1(step * (beta.log() if isinstance(beta, Tensor) else math.log(beta)))
