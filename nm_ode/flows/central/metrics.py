"""What an optimiser's step makes of the gradient: a diagonal metric, in which the edge of stability lies at one value.

On average θ̇ = −s D⁻¹F, F being the gradient of the averaged loss, D ≻ 0 diagonal and s a speed. An oscillation neither
grows nor falls along u with Hu = E Du, E being the edge. D depends on a memory ν, which follows the squares of the
gradient as they are on average, those of the oscillation included (docs/theory.md §4.12).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nm_ode.flows.base import Descent, FlowError, SecondMoment, UpdateMap, require_descent, require_update_map
from nm_ode.loss.operators import Preconditioned, SymmetricOperator


@dataclass(frozen=True, eq=False)
class Diagonal:
    """D at one state.

    Attributes:
        values: shape (P,), or (1,) where all are the same; None for ones.
    """

    values: Tensor | None = None

    def times(self, vectors: Tensor) -> Tensor:
        """D v, shape (…, P)."""
        return vectors if self.values is None else self.values * vectors

    def over(self, vectors: Tensor) -> Tensor:
        """D⁻¹ v, shape (…, P)."""
        return vectors if self.values is None else vectors / self.values

    def root_times(self, vectors: Tensor) -> Tensor:
        """D^{1/2} v, shape (…, P)."""
        return vectors if self.values is None else self.values.sqrt() * vectors

    def over_root(self, vectors: Tensor) -> Tensor:
        """D^{−1/2} v, shape (…, P)."""
        return vectors if self.values is None else vectors / self.values.sqrt()

    def seen_by(self, operator: SymmetricOperator) -> SymmetricOperator:
        """D^{−1/2} A D^{−1/2}."""
        if self.values is None:
            return operator
        return Preconditioned(operator, self.values.expand(operator.size))


class Metric:
    """Of plain descent: D = 1, and no memory.

    Attributes:
        edge: E, the eigenvalue of D^{−1/2}HD^{−1/2} at the edge of stability.
        limit: of stability: E times `step`.
        step: a, flow time of a step.
        decay: λ of weight decay that is part of the gradient.
        speed: s.
        second_order: is the flow's term of order a known?
        is_plain: is it plain descent?
        remembers: is there a memory in the state, on which D depends?
    """

    speed: float = 1.0
    second_order: bool = True
    is_plain: bool = True
    remembers: bool = False

    def __init__(self, step: float, limit: float, decay: float) -> None:
        self.step, self.limit, self.decay = step, limit, decay
        self.edge = limit / step

    def start(self, theta: Tensor, memory: Tensor | None, gradient: Tensor) -> Tensor:
        """The flow's state.

        Args:
            memory: the optimiser's whole state before a step; None at rest.
            gradient: of the step, with weight decay.
        """
        return theta

    def diagonal(self, memory: Tensor) -> Diagonal:
        """D, of what the flow's state has beside theta."""
        return Diagonal()

    def drift(self, memory: Tensor, diagonal: Diagonal, directions: Tensor) -> Drift | None:
        """How D moves; None where it does not.

        Args:
            directions: u_i, shape (k, P).
        """
        return None

    def scale(self, memory: Tensor) -> Tensor | None:
        """Typical size of each entry of the memory; None where there is none."""
        return None


class HeavyBall(Metric):
    """SGD with momentum β, which goes 1/(1−β) times as fast and is stable up to 2(1+β)."""

    second_order = False
    is_plain = False

    def __init__(self, optimizer: Descent) -> None:
        beta = optimizer.momentum
        super().__init__(optimizer.time_per_step, 2 * (1 + beta), optimizer.weight_decay)
        self.speed = 1 / (1 - beta)


class Squares(Metric):
    """D = √ν + ε, ν being the second moment of the step to come: its own gradient is in it.

    From ν_k = αν_{k−1} + (1−α)g_k² there follows ν̇ = pace · (g² − ν) + lag · d(g²)/dt to first order in how fast g²
    changes, with pace = −log α a step and lag = 1 + α log α/(1−α). Where the moment is corrected for its start at 0,
    D has ν/b in it, b = 1 − α^k. As ḃ = pace · (1 − b), ν/b has the same equation with pace/b and lag/b; it is what the
    state has, and after it k.
    """

    is_plain = False
    remembers = True

    def __init__(self, optimizer: Any, moment: SecondMoment) -> None:
        super().__init__(optimizer.time_per_step, 2.0, optimizer.weight_decay)
        alpha, self._eps, self._whole = moment.alpha, moment.eps, moment.whole
        self._corrected, self._layout = moment.corrected, optimizer.state_layout
        if not alpha > 0:
            raise FlowError(
                f"central flow with {type(optimizer).__name__}: without a memory of squares (alpha or betas[1] = 0) a "
                "step is the gradient's sign, and has no flow; set it above 0"
            )
        self._alpha, self.pace = alpha, -math.log(alpha) / self.step
        self.lag = 1 + alpha * math.log(alpha) / (1 - alpha)

    def start(self, theta: Tensor, memory: Tensor | None, gradient: Tensor) -> Tensor:
        """theta and ν, or ν/b and k."""
        square, before = (1 - self._alpha) * self.products(gradient, gradient), 0.0
        if memory is not None:
            _, *parts = self._layout(len(theta)).split(memory)
            moment, before = (parts[1], float(parts[2])) if self._corrected else (parts[0], 0.0)
            square = square + self._alpha * moment
        if not self._corrected:
            return torch.cat([theta, square])
        count = theta.new_full((1,), before + 1)
        return torch.cat([theta, square / self._filled(count), count])

    def products(self, x: Tensor, y: Tensor) -> Tensor:
        """What ν averages, of two vectors in place of g and g: shapes (…, P) to (…, m)."""
        return (x * y).sum(dim=-1, keepdim=True) if self._whole else x * y

    def square(self, memory: Tensor) -> Tensor:
        """What D has the root of, shape (m,)."""
        return memory[:-1] if self._corrected else memory

    def filled(self, memory: Tensor) -> Tensor | float:
        """b; 1 where nothing is corrected."""
        return self._filled(memory[-1:]) if self._corrected else 1.0

    def with_count(self, rate: Tensor) -> Tensor:
        """Of the memory, from that of the square."""
        return torch.cat([rate, rate.new_full((1,), 1 / self.step)]) if self._corrected else rate

    def _filled(self, count: Tensor) -> Tensor:
        return -torch.expm1(count * math.log(self._alpha))

    def diagonal(self, memory: Tensor) -> Diagonal:
        return Diagonal(self.square(memory).clamp(min=0.0).sqrt() + self._eps)

    def drift(self, memory: Tensor, diagonal: Diagonal, directions: Tensor) -> Drift:
        return Drift(self, memory, diagonal, directions)

    def scale(self, memory: Tensor) -> Tensor:
        sizes = self.square(memory).clamp(min=0.0) + self._eps**2
        return torch.cat([sizes, memory[-1:]]) if self._corrected else sizes


class Drift:
    """How D of `Squares` moves, at one state.

    The gradient's average square is F² + E²(DΣD), entry by entry or summed, F being its average: an oscillation along u
    with Hu = E Du has the gradient E Du.
    """

    def __init__(self, metric: Squares, memory: Tensor, diagonal: Diagonal, directions: Tensor) -> None:
        assert diagonal.values is not None
        self._metric, self._square, filled = metric, metric.square(memory), metric.filled(memory)
        self._pace, self._lag = metric.pace / filled, metric.lag / filled
        root = self._square.clamp(min=0.0).sqrt()
        # Where no gradient ever was, ν and all that moves it are 0.
        self._slope = torch.where(root > 0, 0.5 / root, torch.zeros_like(root))
        self._weight = metric.edge * self._slope / diagonal.values**2
        k, bent = len(directions), diagonal.times(directions)
        pairs = metric.products(bent[:, None, :].expand(k, k, -1), bent[None, :, :].expand(k, k, -1))
        self._pairs = pairs.flatten(0, 1)

    def without(self, force: Tensor) -> Tensor:
        """E u_iᵀḊu_j of F² alone, shape (k²,)."""
        return self._pairs @ (self._weight * self._rate(force))

    def of_oscillation(self) -> Tensor:
        """What each X_kl adds to it, shape (k², k²)."""
        metric = self._metric
        return self._pace * metric.edge**2 * ((self._pairs * self._weight) @ self._pairs.T)

    def rates(self, x: Tensor, force: Tensor, turned: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of the memory, and Ḋ, shape (m,).

        Args:
            x: X, shape (k²,).
            force: F, shape (P,).
            turned: −Hθ̇, shape (P,), where the term of order a is wanted.
        """
        metric = self._metric
        rate = self._rate(force) + self._pace * metric.edge**2 * (x @ self._pairs)
        if turned is not None:
            rate = rate - 2 * self._lag * metric.products(force, turned)
        return metric.with_count(rate), self._slope * rate

    def _rate(self, force: Tensor) -> Tensor:
        return self._pace * (self._metric.products(force, force) - self._square)


def metric_of(optimizer: UpdateMap) -> Metric:
    """The metric of an optimiser.

    Raises:
        FlowError: an optimiser for which none is known.
    """
    require_update_map(optimizer)
    moment: SecondMoment | None = getattr(optimizer, "second_moment", None)
    if moment is not None:
        return Squares(optimizer, moment)
    if not optimizer.is_descent:
        raise FlowError(
            f"central flow with {type(optimizer).__name__}: it is that of SGD without Nesterov's momentum, of RMSProp "
            "without momentum and not centred, of Adam with betas[0] = 0, and of AdamW without weight_decay too"
        )
    descent = require_descent(optimizer, "central flow")
    if descent.nesterov:
        raise FlowError(
            "central flow with nesterov = True: it is that of plain descent and of heavy ball; set nesterov = False"
        )
    if descent.momentum:
        return HeavyBall(descent)
    return Metric(descent.lr, 2.0, descent.weight_decay)
