"""RMSProp, of each entry's own square and of the whole gradient's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nm_ode.optimizers.base import Optimizer, SecondMoment, StabilityLimit, StateLayout, has, plus_times
from nm_ode.optimizers.ranges import Fraction, NotNegative, Positive, require_in_range


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """`torch.optim.RMSprop` as a map of the state (θ, v, …) (docs/theory.md §4.5, §4.12).

    d = g + λθ; v' = αv + (1−α)d²; r = √v' + ε; θ' = θ − η d/r (Hinton 2012). Centred, m' = αm + (1−α)d and
    r = √(v' − m'²) + ε. With momentum, b' = μb + d/r and θ' = θ − ηb'. No moment is corrected for its start at 0.

    Args:
        lr: learning rate η > 0.
        alpha: α in [0, 1).
        eps: ε > 0, or 0 where no gradient ever vanishes.
        weight_decay: λ ≥ 0, added to the gradient.
        momentum: μ in [0, 1).
        centered: whether the mean's square is taken off. On a constant gradient what is left is rounding, and with
            ε = 0 not a number, as in torch.

    Raises:
        ArgumentError: a value outside its range, in one sentence.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> rmsprop = nm_ode.RMSprop(lr=0.1, alpha=0.75)
        >>> state = rmsprop.init(torch.ones(2), torch.tensor([3.0, -4.0]))
        >>> state + rmsprop.increment(state, torch.tensor([3.0, -4.0]))
        tensor([0.8000, 1.2000, 2.2500, 4.0000])
        >>> rmsprop.state_layout(2).names
        ('theta', 'square_avg')
    """

    lr: Positive
    alpha: Fraction = 0.99
    eps: NotNegative = 1e-8
    weight_decay: NotNegative = 0.0
    momentum: Fraction = 0.0
    centered: bool = False

    multiscale: ClassVar[bool] = True  # second moments are squares of gradients
    by_rows: ClassVar[bool] = True
    torch_memory: ClassVar = {
        "square_avg": "square_avg",
        "grad_avg": "grad_avg",
        "velocity": "momentum_buffer",
    }

    def __post_init__(self) -> None:
        require_in_range(self)

    @property
    def stability(self) -> StabilityLimit:
        """2(1+μ) of η times the preconditioned sharpness: heavy ball on the preconditioned curvature."""
        return StabilityLimit(self.lr, 2 * (1 + self.momentum), self.weight_decay, self.momentum)

    @property
    def second_moment(self) -> SecondMoment | None:
        """None with momentum, and centred."""
        return None if self.centered or self.momentum else SecondMoment(self.alpha, self.eps)

    def state_layout(self, n_theta: int) -> StateLayout:
        """theta and square_avg; grad_avg if centred; velocity with momentum."""
        names = ["theta", "square_avg"]
        names += ["grad_avg"] * bool(self.centered) + ["velocity"] * has(self.momentum)
        return StateLayout(tuple((name, n_theta) for name in names))

    def init(self, theta: Tensor, grad: Tensor) -> Tensor:
        """The empty state: all moments are 0."""
        *rows, n = theta.shape
        rest = self.state_layout(n).size - n
        return torch.cat([theta, theta.new_zeros(*rows, 1).expand(*rows, rest)], dim=-1)

    def increment(self, state: Tensor, grad: Tensor) -> Tensor:
        """Φ(z) − z; nothing is written to."""
        parts = self.state_layout(grad.shape[-1]).named(state)
        direction = self._direction(parts["theta"], grad)
        move = direction / self._root(parts, direction)
        gained = {"square_avg": (direction * direction - parts["square_avg"]) * (1 - self.alpha)}
        if self.centered:
            gained["grad_avg"] = (direction - parts["grad_avg"]) * (1 - self.alpha)
        if has(self.momentum):
            velocity = parts["velocity"]
            gained["velocity"] = move - (1 - self.momentum) * velocity
            move = self.momentum * velocity + move
        return torch.cat([move * -self.lr, *gained.values()], dim=-1)

    def scale(self, state: Tensor, grad: Tensor) -> Tensor:
        """Of the moments, what they will be one step on."""
        parts = self.state_layout(len(grad)).named(state)
        square = self._square(parts, self._direction(parts["theta"], grad))
        sizes = {"square_avg": square + self.eps**2, "grad_avg": square.sqrt() + self.eps}
        return torch.cat([sizes.get(name, torch.ones_like(grad)) for name in parts])

    def preconditioner(self, state: Tensor, grad: Tensor) -> Tensor:
        """r of the step to come."""
        parts = self.state_layout(len(grad)).named(state)
        return self._root(parts, self._direction(parts["theta"], grad))

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The same optimiser as torch's own object."""
        return torch.optim.RMSprop(
            parameters,
            lr=self.lr,
            alpha=self.alpha,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            centered=self.centered,
        )

    def to_torch(self, torch_optimizer: torch.optim.Optimizer, parameter: Tensor, state: Tensor) -> None:
        """Put the moments into torch's optimiser of `parameter`, and the count of steps, which it never reads."""
        super().to_torch(torch_optimizer, parameter, state)
        torch_optimizer.state[parameter]["step"] = torch.zeros((), device="cpu")

    def _direction(self, theta: Tensor, grad: Tensor) -> Tensor:
        return plus_times(grad, self.weight_decay, theta) if has(self.weight_decay) else grad

    def _square(self, parts: dict[str, Tensor], direction: Tensor) -> Tensor:
        """v'."""
        # Not v + what it gains: the sum's rounding is that of the larger moment, before or after.
        return self.alpha * parts["square_avg"] + (1 - self.alpha) * (direction * direction)

    def _root(self, parts: dict[str, Tensor], direction: Tensor) -> Tensor:
        """r."""
        square = self._square(parts, direction)
        if self.centered:
            mean = self.alpha * parts["grad_avg"] + (1 - self.alpha) * direction
            square = square - mean * mean
        return square.sqrt() + self.eps


@dataclass(frozen=True)
class ScalarRMSprop(Optimizer):
    """RMSProp with one second moment, of the whole gradient (Cohen et al. 2025, arXiv 2410.24206), state (θ, v).
    See docs/theory.md §4.12.

    d = g + λθ; v' = αv + (1−α)‖d‖²; θ' = θ − η d/(√v' + ε).

    Args:
        lr: learning rate η > 0.
        alpha: α in [0, 1).
        eps: ε > 0, or 0 where the gradient never vanishes.
        weight_decay: λ ≥ 0, added to the gradient.

    Raises:
        ArgumentError: a value outside its range, in one sentence.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> rmsprop = nm_ode.ScalarRMSprop(lr=0.1, alpha=0.75)
        >>> state = rmsprop.init(torch.ones(2), torch.tensor([3.0, -4.0]))
        >>> state + rmsprop.increment(state, torch.tensor([3.0, -4.0]))
        tensor([0.8800, 1.1600, 6.2500])
    """

    lr: Positive
    alpha: Fraction = 0.99
    eps: NotNegative = 1e-8
    weight_decay: NotNegative = 0.0

    multiscale: ClassVar[bool] = True
    by_rows: ClassVar[bool] = True
    torch_memory: ClassVar = {"square_avg": "square_avg"}

    def __post_init__(self) -> None:
        require_in_range(self)

    @property
    def stability(self) -> StabilityLimit:
        """2 of η times the preconditioned sharpness."""
        return StabilityLimit(self.lr, 2.0, self.weight_decay, 0.0)

    @property
    def second_moment(self) -> SecondMoment:
        """Of the whole gradient."""
        return SecondMoment(self.alpha, self.eps, whole=True)

    def state_layout(self, n_theta: int) -> StateLayout:
        """theta, and one number."""
        return StateLayout((("theta", n_theta), ("square_avg", 1)))

    def init(self, theta: Tensor, grad: Tensor) -> Tensor:
        """v = 0."""
        return torch.cat([theta, theta.new_zeros(*theta.shape[:-1], 1)], dim=-1)

    def increment(self, state: Tensor, grad: Tensor) -> Tensor:
        """Φ(z) − z; nothing is written to."""
        theta, square = self.state_layout(grad.shape[-1]).split(state)
        direction = self._direction(theta, grad)
        of_step = _squared_norm(direction)
        root = (self.alpha * square + (1 - self.alpha) * of_step).sqrt() + self.eps
        return torch.cat([direction * (-self.lr / root), (of_step - square) * (1 - self.alpha)], dim=-1)

    def scale(self, state: Tensor, grad: Tensor) -> Tensor:
        """Of v, what it will be one step on."""
        return torch.cat([torch.ones_like(grad), self._root(state, grad) ** 2])

    def preconditioner(self, state: Tensor, grad: Tensor) -> Tensor:
        """√v' + ε of the step to come, the same for each entry."""
        return self._root(state, grad).expand_as(grad).clone()

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The same optimiser as an object of torch's kind."""
        return TorchScalarRMSprop(
            parameters, lr=self.lr, alpha=self.alpha, eps=self.eps, weight_decay=self.weight_decay
        )

    def _root(self, state: Tensor, grad: Tensor) -> Tensor:
        theta, square = self.state_layout(len(grad)).split(state)
        of_step = _squared_norm(self._direction(theta, grad))
        return (self.alpha * square + (1 - self.alpha) * of_step).sqrt() + self.eps

    def _direction(self, theta: Tensor, grad: Tensor) -> Tensor:
        return plus_times(grad, self.weight_decay, theta) if has(self.weight_decay) else grad


class TorchScalarRMSprop(torch.optim.Optimizer):
    """`ScalarRMSprop` for a training loop: ‖d‖² is summed over the parameters of a group that have a gradient.

    Each parameter's state has its group's v, shape (1,), under "square_avg".

    Args:
        params, lr, alpha, eps, weight_decay: as of torch's RMSprop.

    Raises:
        ArgumentError: a value outside its range, in one sentence.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        ScalarRMSprop(lr, alpha, eps, weight_decay)  # are they in their ranges?
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; what `closure` returns, which evaluates the loss anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                self._move(moved, group)
        return loss

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        decay, alpha = group["weight_decay"], group["alpha"]
        directions = [
            plus_times(p.grad, decay, p) if decay else p.grad for p in parameters if p.grad is not None
        ]
        of_step = torch.stack([_squared_norm(one.reshape(-1)) for one in directions]).sum(dim=0)
        known = next((self.state[p]["square_avg"] for p in parameters if "square_avg" in self.state[p]), None)
        square = (1 - alpha) * of_step if known is None else alpha * known + (1 - alpha) * of_step
        factor = (-group["lr"] / (square.sqrt() + group["eps"])).reshape(())
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.add_(direction * factor)
            self.state[parameter]["square_avg"] = square


def _squared_norm(vectors: Tensor) -> Tensor:
    """Shape (…, P) to (…, 1)."""
    return (vectors * vectors).sum(dim=-1, keepdim=True)
