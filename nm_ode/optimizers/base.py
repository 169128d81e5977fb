"""What every optimiser offers: its update as a map of one state vector, and what it may know beyond that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from nm_ode.errors import ArgumentError
from nm_ode.required import as_positive, no_optimizer

SERIES_LIMIT = 1.0
"""Largest `StabilityLimit.step` · λ_max for which log E = Σ (−1)^{j+1} Δ^j/j converges along a mode of curvature λ.

In each optimiser here the two eigenvalues w of Δ on such a mode have the product x = step · λ, and where they are
complex |w|² = x; plain descent has w = −x. So the modified flow's series has the radius x = 1, below the limit of
stability.
"""


@dataclass(frozen=True)
class StateLayout:
    """Where the parts of an optimiser's state lie in one vector; theta is the first.

    Attributes:
        parts: name and length of each, in order.

    Example:
        >>> import torch
        >>> from nm_ode.optimizers import StateLayout
        >>> layout = StateLayout((("theta", 2), ("velocity", 2), ("step", 1)))
        >>> layout.size, layout.names
        (5, ('theta', 'velocity', 'step'))
        >>> layout.named(torch.arange(5.0))["velocity"]
        tensor([2., 3.])
    """

    parts: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """S, the length of the state."""
        return sum(size for _, size in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts."""
        return tuple(name for name, _ in self.parts)

    def split(self, state: Tensor) -> tuple[Tensor, ...]:
        """Views of the parts, of one state or of rows of states: shape (…, S) to (…, size of the part).

        Raises:
            ArgumentError: a vector of another length.
        """
        if state.shape[-1:] != (self.size,):
            listed = " + ".join(f"{name} ({size})" for name, size in self.parts)
            raise ArgumentError(
                f"the state has shape {tuple(state.shape)}; it must have ({self.size},): {listed}"
            )
        return torch.split(state, [size for _, size in self.parts], dim=-1)

    def named(self, state: Tensor) -> dict[str, Tensor]:
        """`split`, by name."""
        return dict(zip(self.names, self.split(state), strict=True))


@dataclass(frozen=True)
class StabilityLimit:
    """How an optimiser stands to curvature.

    Attributes:
        step: the learning rate that curvature sees: what happens on a mode depends on it times λ.
        limit: largest `step` · λ_max at which a minimum is stable.
        decay: what weight decay adds to every eigenvalue of the Hessian.
        momentum: β of the recursion by which a small error on a mode goes on, δ_{k+1} = (1 + β − x) δ_k − β δ_{k−1};
            None if it is another or not known: then nobody foresees when an oscillation past the limit is large.
        nesterov: that of Nesterov's look-ahead instead.

    Example:
        >>> import nm_ode
        >>> nm_ode.SGD(lr=0.1, momentum=0.5).stability
        StabilityLimit(step=0.1, limit=3.0, decay=0.0, momentum=0.5, nesterov=False)
    """

    step: float
    limit: float
    decay: float = 0.0
    momentum: float | None = None
    nesterov: bool = False


@dataclass(frozen=True)
class SecondMoment:
    """Of θ' = θ − η d/(√v' + ε), v' = αv + (1−α)d², d the gradient with weight decay; the state is (θ, v).

    Attributes:
        alpha, eps: α and ε.
        whole: is v one number, of ‖d‖²? Else it has each entry's own square.
        corrected: is it v'/(1 − α^{k'}) that has the root taken? The state is (θ, m, v, k), m without effect.
    """

    alpha: float
    eps: float
    whole: bool = False
    corrected: bool = False


class Optimizer(ABC):
    """z_{k+1} = Φ(z_k), z being theta and the optimiser's memory (momentum, moments, step count) in one vector.

    A subclass is a frozen dataclass of its hyperparameters, which are also its keys in a case file. It must have
    `lr`, `state_layout`, `init` and `increment`; all else is optional.

    Example:
        >>> import nm_ode
        >>> from nm_ode.optimizers import OPTIMIZERS
        >>> issubclass(nm_ode.SGD, nm_ode.Optimizer), sorted(OPTIMIZERS)
        (True, ['adam', 'adamw', 'rmsprop', 'scalar_rmsprop', 'sgd'])
        >>> adam = nm_ode.Adam(lr=1e-3)
        >>> adam.stateful, adam.multiscale, adam.stability.limit
        (True, True, 3.8)
    """

    lr: float

    multiscale: ClassVar[bool] = False
    """Do entries of the state differ in size by orders of magnitude? Then `scale` and `preconditioner` say how."""

    is_descent: ClassVar[bool] = False
    """Is it SGD? Flows and laws that are written out for SGD alone ask."""

    by_rows: ClassVar[bool] = False
    """Do `init` and `increment` as they are written in this class take rows of states and gradients, shapes (M, S) and
    (M, P), and in place of a hyperparameter a tensor (M, 1) of each row's own, none of which is 0? (`has` and
    `plus_times` read either.) Where they do not, rows with the same hyperparameters go through `vmap`.
    """

    torch_memory: ClassVar[Mapping[str, str]] = {}
    """Part of the state → its name in torch.optim's own state, where there is a torch twin."""

    @abstractmethod
    def state_layout(self, n_theta: int) -> StateLayout:
        """The layout for `n_theta` parameters."""

    @abstractmethod
    def init(self, theta: Tensor, grad: Tensor) -> Tensor:
        """z_0 of a run that starts at theta, shapes (P,); `grad` is ∇L(theta)."""

    @abstractmethod
    def increment(self, state: Tensor, grad: Tensor) -> Tensor:
        """Φ(z) − z, with `grad` = ∇L at the state's theta; without the rounding of a difference."""

    @property
    def stateful(self) -> bool:
        """Is there more in the state than theta?"""
        return len(self.state_layout(1).parts) > 1

    @property
    def time_per_step(self) -> float:
        """Flow time of one step (docs/theory.md §1)."""
        return self.lr

    @property
    def stability(self) -> StabilityLimit | None:
        """Where the optimiser is stable; None if it is not known."""
        return None

    @property
    def second_moment(self) -> SecondMoment | None:
        """By which it divides; None if it takes other steps than `SecondMoment` says."""
        return None

    def scale(self, state: Tensor, grad: Tensor) -> Tensor | None:
        """Typical size of each entry of the state, relative to theta's; None if all are alike."""
        return None

    def preconditioner(self, state: Tensor, grad: Tensor) -> Tensor | None:
        """D, shape (P,), of the step to come; None for the identity.

        The optimiser sees the curvature D^{-1/2} H D^{-1/2}.
        """
        return None

    def torch_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer | None:
        """The same optimiser as torch's own object; None if torch has none, and `train` takes `increment`."""
        return None

    def to_torch(self, torch_optimizer: torch.optim.Optimizer, parameter: Tensor, state: Tensor) -> None:
        """Put all of `state` but theta into torch's optimiser of `parameter`."""
        parts = self.state_layout(parameter.numel()).named(state)
        for name, theirs in self.torch_memory.items():
            if name in parts:
                torch_optimizer.state[parameter][theirs] = parts[name].clone()

    def from_torch(self, torch_optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
        """The state in torch's optimiser after its first step."""
        theta, found = parameter.detach(), torch_optimizer.state[parameter]
        names = self.state_layout(parameter.numel()).names[1:]
        memory = [found[self.torch_memory[name]].reshape(-1).to(parameter) for name in names]
        return torch.cat([theta, *memory]) if memory else theta.clone()


def has(number: float | Tensor) -> bool:
    """Is a hyperparameter not 0? Where rows have one each, none of theirs is."""
    return isinstance(number, Tensor) or number != 0


def plus_times(one: Tensor, factor: float | Tensor, other: Tensor) -> Tensor:
    """one + factor · other; the factor a number, or one for each row."""
    if isinstance(factor, Tensor):
        return torch.addcmul(one, factor, other)
    return one.add(other, alpha=factor)


def require_optimizer(given: Any) -> None:
    """Raises ArgumentError unless it is an optimiser of nm_ode with a positive learning rate."""
    if not isinstance(given, Optimizer):
        raise ArgumentError(no_optimizer(given))
    as_positive(given.lr, "lr")


def hyperparameters(optimizer: Optimizer) -> dict[str, Any]:
    """By name, as the class takes them."""
    return {field.name: getattr(optimizer, field.name) for field in fields(optimizer)}  # type: ignore[arg-type]


def describe(optimizer: Optimizer) -> str:
    """'SGD, lr = 0.1, momentum = 0.9': what is not as by default."""
    words = [type(optimizer).__name__]
    for field in fields(optimizer):  # type: ignore[arg-type]
        value = getattr(optimizer, field.name)
        if field.default is MISSING or value != field.default:
            words.append(f"{field.name.replace('_', ' ')} = {_text(value)}")
    return ", ".join(words)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)).join("()")
    return f"{value:g}" if isinstance(value, int | float) else str(value)
