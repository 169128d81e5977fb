"""One step of a torch optimiser, as it is seen from its hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nm_ode.modes import own_modes
from nm_ode.parameters import Difference, Layout, Parts


class StepListener(Protocol):
    """Who is told of the steps."""

    def loss_of_closure(self, value: Any) -> None:
        """What the closure returned that the step was given, at its first call; comes before `before_step`."""
        ...

    def before_step(self, gradient: Parts) -> None:
        """The gradient is there, and the parameters are as they were when it was taken."""
        ...

    def after_step(self, update: Parts) -> None:
        """The step has been taken."""
        ...

    def step_skipped(self) -> None:
        """`before_step` was called, and no step was taken."""
        ...


class StepHooks:
    """Hooks on an optimiser's `step`, with what they keep between its start and its end.

    Args:
        optimizer: the user's own.
        layout: of theta.
        parameters: one for each slot of the layout.
        listener: called with gradients on, autocast off.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        layout: Layout,
        parameters: list[nn.Parameter],
        listener: StepListener,
    ) -> None:
        self._optimizer, self._layout, self._parameters, self._listener = (
            optimizer,
            layout,
            parameters,
            listener,
        )
        self._before: list[Tensor] = []
        self._room: list[Tensor] = []
        self._told = False
        self._handles = [
            optimizer.register_step_pre_hook(self._enter),
            optimizer.register_step_post_hook(self._leave),
        ]

    def remove(self) -> None:
        """The optimiser is as it was."""
        for handle in self._handles:
            handle.remove()
        self._before, self._room = [], []

    def theta(self) -> Parts:
        """The parameters where they lie."""
        return self.parts([parameter.detach() for parameter in self._parameters])

    def parts(self, tensors: list[Tensor | None] | list[Tensor]) -> Parts:
        """One tensor for each slot as a vector."""
        return Parts(self._layout.slots, tensors, self._parameters[0].detach())

    def state(self, name: str) -> Parts:
        """A part of the optimiser's state, by torch's name; zeros where there is none yet.

        Raises:
            KeyError: no parameter has it.
        """
        states = [self._optimizer.state.get(parameter, {}).get(name) for parameter in self._parameters]
        if all(state is None for state in states):
            raise KeyError(name)
        return self.parts(states)

    def _enter(self, optimizer: Any, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]] | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._told = False
        if closure is None:
            self._tell()
            return None
        wrapped = self._wrapped(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _wrapped(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure that tells of the gradient at its first call: before it there is none."""

        def called() -> Any:
            value = closure()
            if not self._told:
                self._tell(value)
            return value

        return called

    def _tell(self, loss: Any = None) -> None:
        self._told = True
        with torch.no_grad(), own_modes():
            scale = getattr(self._optimizer, "grad_scale", None)
            gradients = [parameter.grad for parameter in self._parameters]
            if scale is not None:  # a GradScaler left the unscaling to the optimiser
                gradients = [None if g is None else g / scale for g in gradients]
            if loss is not None:
                self._listener.loss_of_closure(loss)
            self._listener.before_step(self.parts(gradients))
            values = [parameter.detach() for parameter in self._parameters]
            if len(self._before) != len(values):
                self._before = [torch.empty_like(value) for value in values]
            torch._foreach_copy_(self._before, values)

    def _leave(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._told:
            return
        self._told = False
        with torch.no_grad(), own_modes():
            found_inf = getattr(self._optimizer, "found_inf", None)
            if found_inf is not None and bool(found_inf):
                self._listener.step_skipped()
                return
            values = [parameter.detach() for parameter in self._parameters]
            after, before = self.parts(values), self.parts(self._before)
            self._listener.after_step(Difference(self._layout.slots, after, before, self._room))
