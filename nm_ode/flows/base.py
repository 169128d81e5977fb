"""What every flow offers to the solver, and what it asks of an optimiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.arguments import as_count, said
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.loss import Problem
from nm_ode.loss.given import require_one_loss
from nm_ode.required import LARGEST, no_optimizer

JacobianProduct: TypeAlias = Callable[[float, Tensor, Tensor], Tensor]
"""(t, state, v) → the field's Jacobian times v."""


@dataclass(frozen=True)
class Oscillation:
    """The oscillation of a run about the state of a flow (nm_ode/observers/oscillation.py).

    Attributes:
        at: state → what there is of it there.
        most: its directions are no more than these.
        edge: the eigenvalue at which a direction oscillates.
    """

    at: Callable[[Tensor], Any]
    most: int
    edge: float


class FlowError(NmOdeError, ValueError):
    """This flow does not exist for this optimiser, order or run.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> nm_ode.GradientFlow(problem, nm_ode.SGD(lr=0.1, momentum=0.9))
        Traceback (most recent call last):
            ...
        nm_ode.flows.base.FlowError: gradient flow with momentum = 0.9: it is that of plain descent alone; ...
    """


class OscillationError(FlowError):
    """The oscillation at the edge of stability cannot be found from what is given, or has no bound."""


class StateLayout(Protocol):
    """Where the parts of an optimiser's state lie."""

    def split(self, state: Tensor) -> tuple[Tensor, ...]: ...


class SecondMoment(Protocol):
    """Of an optimiser with θ' = θ − η d/(√v' + ε), v' = αv + (1−α)d², d the gradient with weight decay."""

    @property
    def alpha(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def whole(self) -> bool:
        """Is v one number, of ‖d‖²?"""
        ...

    @property
    def corrected(self) -> bool:
        """Is it v'/(1 − α^{k'}) that has the root taken?"""
        ...


class UpdateMap(Protocol):
    """What a flow asks of an optimiser; `nm_ode.optimizers.Optimizer` has it."""

    @property
    def lr(self) -> float: ...
    @property
    def time_per_step(self) -> float: ...
    @property
    def stateful(self) -> bool: ...
    @property
    def multiscale(self) -> bool: ...
    @property
    def is_descent(self) -> bool: ...
    def state_layout(self, n_theta: int) -> StateLayout: ...
    def init(self, theta: Tensor, grad: Tensor) -> Tensor: ...
    def increment(self, state: Tensor, grad: Tensor) -> Tensor: ...
    def scale(self, state: Tensor, grad: Tensor) -> Tensor | None: ...


class Descent(UpdateMap, Protocol):
    """SGD with any of its options."""

    @property
    def momentum(self) -> float: ...
    @property
    def dampening(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def nesterov(self) -> bool: ...


@dataclass(frozen=True)
class Cost:
    """What one right-hand side takes of a problem.

    Args:
        gradients, hvps, third_derivatives: how many of each.
        hvps_per_jvp: Hessian products in a product of `Flow.jvp`.

    Example:
        >>> from nm_ode.flows import Cost
        >>> Cost(gradients=2, hvps=1)
        Cost(gradients=2, hvps=1, third_derivatives=0, hvps_per_jvp=1)
    """

    gradients: int = 1
    hvps: int = 0
    third_derivatives: int = 0
    hvps_per_jvp: int = 1


class Flow(ABC):
    """A vector field on a state that contains theta, in flow time (docs/theory.md §1).

    A subclass is a frozen dataclass whose first two fields are `problem` and, where it has one, `optimizer`; further
    fields are its options in a case file. It must have what is declared or abstract here; the rest is optional.

    Attributes:
        problem: the loss.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> flow = nm_ode.modified_flow(problem, nm_ode.SGD(lr=0.1, momentum=0.9), order=3)
        >>> flow.name, flow.expected_order, flow.cost
        ('modified_3_iterated_map', 3, Cost(gradients=3, hvps=0, third_derivatives=0, hvps_per_jvp=1))
        >>> flow.rhs(0.0, flow.state_from(problem.theta0)).shape
        torch.Size([22])
    """

    problem: Problem

    def __post_init__(self) -> None:
        """Of a dataclass: are its first two fields what they are said to be?"""
        require_one_loss(self.problem)
        given = getattr(self, "optimizer", None)
        if given is not None:
            require_update_map(given)

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and unique among a case's flows; the group's name in the tree."""

    @property
    @abstractmethod
    def title(self) -> str:
        """For a reader."""

    @property
    @abstractmethod
    def expected_order(self) -> int:
        """Order in lr of the global error at a fixed time, for smooth losses and beyond an optimiser's transients."""

    @property
    @abstractmethod
    def depends_on_lr(self) -> bool:
        """Is the field that of one learning rate?"""

    @property
    def update_map(self) -> UpdateMap | None:
        """The optimiser whose run the flow describes; None where none enters."""
        found: UpdateMap | None = getattr(self, "optimizer", None)
        return found

    @property
    def lr(self) -> float | None:
        """The learning rate that the field is that of; None where it depends on none."""
        optimizer = self.update_map
        return optimizer.lr if self.depends_on_lr and optimizer is not None else None

    @property
    def follows_average(self) -> bool:
        """Is it of the run's time average, about which the run oscillates, and not of the run itself?"""
        return False

    @property
    def cost(self) -> Cost:
        """What one right-hand side takes; where that varies, the least."""
        return Cost()

    @abstractmethod
    def rhs(self, t: float, state: Tensor) -> Tensor:
        """d state / dt, same shape, dtype and device as the state, which is not to be written to.

        One that has a further parameter `out: Tensor | None = None` writes it there if it is given, and returns that:
        it saves a solver on the device a vector of the state's size.
        """

    def state_from(self, theta: Tensor, memory: Tensor | None = None) -> Tensor:
        """The state of a run that starts at theta; theta itself unless the flow has more.

        Args:
            theta: shape (P,).
            memory: the optimiser's whole state of a run that is under way; None for one that starts at rest.
        """
        return theta

    def theta_in(self, state: Tensor) -> Tensor:
        """The parameters in a state: its first P entries."""
        return state[: self.problem.layout.size]

    def scale(self, state: Tensor) -> Tensor | None:
        """Typical size of each entry of the state, relative to theta's; None if all are alike."""
        return None

    @property
    def jvp(self) -> JacobianProduct | None:
        """The exact Jacobian product, where the flow has one."""
        return None

    @property
    def cheap_jvp(self) -> bool:
        """Does the product take less than a right-hand side, and may it be approximate?"""
        return False

    @property
    def amplification(self) -> float:
        """How many times larger the rounding noise of the field is, relative to it, than that of the gradient."""
        return 1.0

    @property
    def noise(self) -> float:
        """Error of the field, relative to it, that is not the gradient's rounding: of what is found by iteration."""
        return 0.0

    @property
    def oscillation(self) -> Oscillation | None:
        """What the run has beside the state, which a solution then records unasked; None where the state is all."""
        return None

    @property
    def map_order(self) -> int | None:
        """Order K of a truncated series of the optimiser's map, whose one-step defects a run shows."""
        return None

    @property
    def jumps(self) -> NDArray[np.float64] | None:
        """Flow times at which the field jumps, the start included; None for a continuous field."""
        return None

    def during(self, piece: int) -> Flow:
        """The field in force from jumps[piece] on, up to the next."""
        return self

    def non_finite_remedy(self, *, warm_start: bool) -> str | None:
        """What to do where the field became non-finite, if this flow knows more than a solver does."""
        return None


def other_options(flow: Flow, names: Sequence[str]) -> dict[str, str]:
    """Of these options of a dataclass those that are not at their defaults, as they stand in a name."""
    defaults = {field.name: field.default for field in fields(cast(Any, flow))}
    values = {name: getattr(flow, name) for name in names}
    return {
        name: f"{value:.15g}" if isinstance(value, float) else str(value).lower()
        for name, value in values.items()
        if value != defaults[name]
    }


def require_flow(given: Any) -> None:
    """Raises ArgumentError unless it is a flow."""
    if not isinstance(given, Flow):
        raise ArgumentError(
            f"flow must be a flow, such as nm_ode.GradientFlow(problem); {said(given)} was given"
        )


def require_update_map(given: Any) -> None:
    """Raises ArgumentError unless it is an optimiser of nm_ode."""
    if isinstance(given, type) or not all(
        hasattr(given, name) for name in ("state_layout", "init", "increment")
    ):
        raise ArgumentError(no_optimizer(given))


def as_order(given: Any, flow: str, built: tuple[int, ...]) -> int:
    """The order of a flow that exists for some.

    Args:
        flow: for the sentence: "the Hessian form".
        built: orders for which it does.

    Raises:
        FlowError: another.
    """
    order = as_count(given, "order", error=FlowError, least=-LARGEST)
    if order not in built:
        raise FlowError(f"{flow} is built for orders {' and '.join(map(str, built))}, not {said(order)}")
    return order


def require_descent(optimizer: UpdateMap, flow: str) -> Descent:
    """The optimiser as SGD.

    Raises:
        FlowError: it is another.
    """
    require_update_map(optimizer)
    if not optimizer.is_descent:
        raise FlowError(
            f"{flow} with {type(optimizer).__name__}: it is that of SGD alone; take the modified flow in "
            "iterated-map form, which every optimiser has"
        )
    found: Any = optimizer
    descent: Descent = found
    return descent


def require_plain(optimizer: UpdateMap, flow: str) -> Descent:
    """The optimiser as plain descent.

    Raises:
        FlowError: an optimiser whose state is more than theta.
    """
    descent = require_descent(optimizer, flow)
    if descent.momentum:
        raise FlowError(
            f"{flow} with momentum = {descent.momentum}: it is that of plain descent alone; set momentum = 0, or "
            "take the modified flow in iterated-map form"
        )
    return descent


def regularised_gradient(
    problem: Problem, optimizer: Descent | None, theta: Tensor, out: Tensor | None = None
) -> Tensor:
    """∇L + λθ, in `out` if given, else a tensor of the caller's own."""
    gradient = problem.grad(theta) if out is None else problem.grad(theta, out=out)
    if optimizer is not None and optimizer.weight_decay:
        gradient.add_(theta, alpha=optimizer.weight_decay)
    return gradient


def regularised_hvp(problem: Problem, optimizer: Descent, theta: Tensor, v: Tensor) -> Tensor:
    """(H + λ) v, a tensor of the caller's own."""
    product = problem.hvp(theta, v)
    return product.add_(v, alpha=optimizer.weight_decay) if optimizer.weight_decay else product
