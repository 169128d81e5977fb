"""Observers: what is measured along a run or a flow. One protocol for those of nm_ode and for a user's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem
from nm_ode.loss.expected import share_of_batches
from nm_ode.observers.memory import plain_attributes, set_attributes
from nm_ode.optimizers import Optimizer
from nm_ode.parameters import Layout, Parts, Vector
from nm_ode.passes import Passes
from nm_ode.registry import UnknownNameError
from nm_ode.results import TimeGrid, Variable

Coordinates: TypeAlias = Mapping[str, tuple[str, np.ndarray]]
"""Name → (dimension, values)."""

OPEN_END = 2**62
"""How many steps a run takes of which nobody knows how many: more than any."""

STEP, SAVED_STEP, TIME = "step", "saved_step", "time"
"""Dimensions along which observations lie: every step of a run, its saved steps, the samples of a flow."""


class Groups(Protocol):
    """Groups of parameters of a loop's optimiser, which may take steps of their own."""

    @property
    def settings(self) -> Sequence[Mapping[str, Any]]:
        """Numbers and switches of each, by torch's names, at the start of the step that is seen."""
        ...

    def of(self, names: Collection[str]) -> tuple[int, ...]:
        """Numbers of the groups in which these parameters lie."""
        ...


@dataclass(frozen=True, eq=False)
class Loop:
    """What of a user's own loop an observer can get at beside its vectors.

    Attributes:
        model: the user's own module, without the wrappers of torch.compile and DistributedDataParallel.
        groups: of torch's own SGD, where there are several; None elsewhere.
    """

    model: nn.Module
    groups: Groups | None = None


@dataclass(frozen=True, eq=False)
class Context:
    """What an observer learns before the first observation.

    Attributes:
        given_problem: the loss; None in a loop of the user's own, of which nobody knows it.
        optimizer: of a run; None along a flow, and of an optimiser that nm_ode does not know.
        steps: N, how many steps the run will take; 0 along a flow, OPEN_END if nobody knows.
        saved_steps: at which theta is kept, N the last.
        device: of the vectors that it will see.
        grid: of a run: when each step is taken, and with which samples; None along a flow.
        given_layout: of theta; that of the problem if None.
        along_flow: is a flow observed, not a run?
        loop: what of the user's own loop there is beside its vectors; None elsewhere.
    """

    given_problem: Problem | None
    optimizer: Optimizer | None
    steps: int
    saved_steps: Collection[int]
    device: torch.device
    grid: TimeGrid | None = None
    given_layout: Layout | None = None
    along_flow: bool = False
    loop: Loop | None = None

    @property
    def problem(self) -> Problem:
        """The loss.

        Raises:
            ArgumentError: nobody knows it.
        """
        if self.given_problem is None:
            raise ArgumentError(
                "this observer evaluates the loss, which a Recorder does not know: give it problem=nm_ode.Problem(…)"
            )
        return self.given_problem

    @property
    def open_ended(self) -> bool:
        """Does nobody know how many steps the run will take?"""
        return self.steps == OPEN_END

    @property
    def expected_problem(self) -> Problem:
        """Of the loss that a batch of the run has on average: the problem itself, unless that sums over its samples."""
        return self.problem if self.grid is None else share_of_batches(self.problem, self.grid)[0]

    @property
    def layout(self) -> Layout:
        """Where each parameter lies in theta."""
        return self.problem.layout if self.given_layout is None else self.given_layout

    @cached_property
    def passes(self) -> Passes:
        """Sums over theta's entries that observers ask for in `begin`, made together."""
        return Passes(self.layout)


class Held(Protocol):
    """A gradient that is held after its step without a copy.

    Attributes:
        tensors: one for each parameter.
    """

    tensors: list[Tensor]

    def is_as_left(self) -> bool:
        """Has nobody written to them since?"""
        ...

    def give_up(self) -> None:
        """Somebody has: gradients are copied from now on."""
        ...


class View:
    """A state of a run or of a flow. Its vectors are the loop's own: copy what must outlive the call.

    Each vector can be had flat, shape (P,), or where it lies (`theta_parts`, `gradient_parts`, `update_parts`): in a
    loop of the user's own in the parameters' own tensors, of which `theta` makes a copy.

    Attributes:
        step: of the optimiser, 0 … N (N: after the last); along a flow the number of the sample.
        time: flow time.
        theta_parts: before the step; in `observe_update` after it.
        lr: of the step; NaN along a flow and after the last step.
        hyperparameters: of the optimiser in this step by torch's names, in a loop of the user's own, which may change
            them; {} elsewhere, where they are the run's.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> class Alignment(nm_ode.Observer):
        ...     update_variables = {"alignment": nm_ode.Variable((), "update against gradient, over lr")}
        ...     def observe_update(self, view):
        ...         return {"alignment": view.update @ view.gradient / view.lr / view.gradient.norm() ** 2}
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=3, observe=[Alignment()])
        >>> run.alignment.values.round(6)
        array([-1., -1., -1.])
    """

    def __init__(
        self,
        problem: Problem | None,
        step: int,
        time: float,
        theta: Vector,
        *,
        lr: float = float("nan"),
        loss_and_gradient: Callable[[], tuple[Tensor, Vector]] | None = None,
        full_loss: Callable[[], Tensor] | None = None,
        state: Callable[[], Tensor] | None = None,
        memory: Callable[[str], Vector] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        hold: Callable[[Parts, bool], Held | None] | None = None,
    ) -> None:
        self._hold = hold
        self.step, self.time, self.theta_parts, self.lr = step, time, theta, lr
        self.hyperparameters: Mapping[str, Any] = {} if hyperparameters is None else hyperparameters
        self._update: Vector | None = None
        self._problem, self._loss_and_gradient, self._full_loss = problem, loss_and_gradient, full_loss
        self._state, self._memory = state, memory

    @property
    def theta(self) -> Tensor:
        """Shape (P,), before the step; in `observe_update` after it."""
        return _flat(self.theta_parts)

    @property
    def update(self) -> Tensor:
        """θ_{k+1} − θ_k, shape (P,).

        Raises:
            ArgumentError: not in `observe_update`: no step has been taken.
        """
        return _flat(self.update_parts)

    @property
    def update_parts(self) -> Vector:
        """θ_{k+1} − θ_k where it lies; raises as `update`."""
        if self._update is None:
            raise ArgumentError("view.update is there in `observe_update` alone: along a run, after its step")
        return self._update

    def take_update(self, update: Vector) -> None:
        """The step has been taken, and moved theta by so much."""
        self._update, self._full_loss = update, None
        self.__dict__.pop("full_loss", None)  # theta has moved

    @cached_property
    def _evaluated(self) -> tuple[Tensor, Vector]:
        if self._loss_and_gradient is not None:
            return self._loss_and_gradient()
        if self._problem is None:
            raise ArgumentError("view.loss and view.gradient: there are none after the last step of a loop")
        return self._problem.loss_and_grad(self.theta)

    @property
    def loss(self) -> Tensor:
        """Of the step's batch before the step, a scalar on the device; of all samples along a flow and after the last
        step.
        """
        return self._evaluated[0]

    @property
    def gradient(self) -> Tensor:
        """Of the step's batch before the step, shape (P,); of all samples along a flow and after the last step."""
        return _flat(self._evaluated[1])

    @property
    def gradient_parts(self) -> Vector:
        """The gradient where it lies."""
        return self._evaluated[1]

    def hold_gradient(self, *, left: bool = False) -> Held | None:
        """The gradient's tensors, where a loop lets go of them after the step; None if it must be copied to be kept.

        Args:
            left: did the same loop so before it was broken off?
        """
        gradient = self.gradient_parts
        return self._hold(gradient, left) if self._hold is not None and isinstance(gradient, Parts) else None

    @cached_property
    def full_loss(self) -> Tensor:
        """Of all samples, at `theta`: in `observe_update` after the step. A scalar."""
        if self._full_loss is not None:
            return self._full_loss()
        if self._problem is None:
            raise ArgumentError(
                "view.full_loss: the loss over all samples is not known in a loop of one's own"
            )
        evaluated = "_evaluated" in self.__dict__ and self._loss_and_gradient is None
        return self.loss if evaluated else self._problem.loss(self.theta)

    def vector(self, name: str) -> Vector:
        """By its name in a shared pass: theta, gradient, update, or a part of the optimiser's memory."""
        if name == "theta":
            return self.theta_parts
        if name == "gradient":
            return self.gradient_parts
        return self.update_parts if name == "update" else self.memory_parts(name)

    def state(self) -> Tensor:
        """The optimiser's whole state, theta first; theta alone along a flow. A copy."""
        return self.theta.clone() if self._state is None else self._state()

    def memory(self, name: str) -> Tensor:
        """`memory_parts`, flat."""
        return _flat(self.memory_parts(name))

    def memory_parts(self, name: str) -> Vector:
        """A part of the optimiser's memory, by its name in `state_layout`: after the step in `observe_update`.

        Raises:
            UnknownNameError: it has none of this name; there is none at all along a flow and after the last step.
        """
        if self._memory is None:
            raise UnknownNameError(
                f"view.memory({said(name)}): there is an optimiser's memory before and after a step of a run alone"
            )
        try:
            return self._memory(name)
        except (KeyError, ValueError, TypeError) as error:
            raise UnknownNameError(
                f"view.memory: this optimiser has no {said(name)} in its memory"
            ) from error

    def parameters(self, vector: Tensor | None = None) -> dict[str, Tensor]:
        """Name → that parameter's part of theta, or of another vector of its shape; views."""
        if vector is None and isinstance(self.theta_parts, Parts):
            return dict(self.theta_parts)
        if self._problem is None:
            raise ArgumentError("view.parameters: of a vector of theta's size it needs a problem")
        whole = self.theta if vector is None else vector
        return {slot.name: whole[slot.slice].view(slot.shape) for slot in self._problem.layout.slots}


def _flat(vector: Vector) -> Tensor:
    return vector.flat() if isinstance(vector, Parts) else vector


class Observer:
    """Turns views into a few numbers, which stay on the device until a sink takes them.

    A subclass declares its variables and fills them. What it returns may be views of the loop's vectors: they are
    copied. It returns each of its variables every time that it is asked, with the same shape.

    Attributes:
        dim: along which its observations lie in a run; a dimension of its own ends in "_step". Along a flow it is
            always "time".
        variables: name → what `observe` returns under it; dims are those beyond `dim`.
        update_variables: the same of `observe_update`; along a run alone.
        sums_update: does it take of the update only sums that it asked of `context.passes`, and read it nowhere else?
            Then they may be made before the step.
        costly: does an observation take as long as many steps? Then a case has it along the run alone, unless it says
            otherwise, for along a flow it is taken at every sample.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> class LargestWeight(nm_ode.Observer):
        ...     variables = {"largest_weight": nm_ode.Variable((), "largest absolute weight")}
        ...     def observe(self, view):
        ...         return {"largest_weight": view.theta.abs().max()}
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=9, observe=[LargestWeight()])
        >>> run.largest_weight.dims, round(float(run.largest_weight[0]), 3)
        (('step',), 0.297)
    """

    costly: ClassVar[bool] = False
    dim: str = STEP
    variables: Mapping[str, Variable] = {}
    update_variables: Mapping[str, Variable] = {}
    sums_update: bool = False

    def begin(self, context: Context) -> Sequence[Observer]:
        """The observers that record this run or flow: itself, or others that it makes."""
        return [self]

    def steps(self, context: Context) -> Collection[int]:
        """Before which steps of a run to observe; N means after the last."""
        return context.saved_steps if self.dim == SAVED_STEP else range(context.steps)

    def coordinates(self) -> Coordinates:
        """Coordinates along the variables' further dimensions."""
        return {}

    def constants(self) -> Mapping[str, float]:
        """Numbers without a dimension."""
        return {}

    def observe(self, view: View) -> Mapping[str, Any]:
        """Of a state: name → tensor or number."""
        return {}

    def observe_update(self, view: View) -> Mapping[str, Any]:
        """Of a step that has been taken: name → tensor or number."""
        return {}

    def follow(self, view: View) -> None:
        """Of every step of a run before it is taken, observed or not: for what is summed between observations."""

    def follow_update(self, view: View) -> None:
        """Of every step that has been taken, observed or not."""

    def memory(self) -> Mapping[str, Any]:
        """What the next observation depends on, for a checkpoint: numbers, texts, tensors, arrays, lists and dicts.

        By default the observer's attributes. Those that nm_ode handed out (a problem, a layout) are left out.

        Raises:
            ArgumentError: an attribute that cannot be kept; then no checkpoint of the run is.
        """
        return plain_attributes(self)

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""
        set_attributes(self, memory)


def spread_steps(steps: int, points: int) -> list[int]:
    """`points` steps of 0 … steps, evenly spread, with both ends."""
    if steps >= OPEN_END - 1:
        raise ArgumentError(
            "this observer spreads its points over a run whose length is known: in a Recorder take Hessian "
            "(every=…), or another that looks at every so many steps"
        )
    count = min(max(points, 2), 2 * steps + 2)  # more find no other steps
    return sorted({round(place) for place in np.linspace(0, steps, count).tolist()})
