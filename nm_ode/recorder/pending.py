"""Which loss belongs to which step: those that were given since the last one, as far as their gradients are in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.errors import ArgumentError
from nm_ode.loss.guards import only_looking


class PendingLosses:
    """The losses that were given and that no step has taken yet.

    A step that a GradScaler leaves out calls no hook of an optimiser; what shows it is that the next backward pass
    starts from an empty gradient again, and then the losses before it are not those of the step to come.

    Attributes:
        dropped: how often a gradient was thrown away without a step.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._given: list[Tensor] = []
        self._backward_passes = 0  # since the last step
        self._before_first = self._before_last = (
            0  # losses that were there at the first and at the last of these
        )
        self._steps = 0
        self._given_in_time = False  # once at least
        self._add = False
        self._version: int | None = None
        self._restarts = False
        self._handles: list[Any] = []

    def watch(self, parameters: list[nn.Parameter]) -> None:
        """See backward passes, by the gradient of one of these parameters."""
        watched = next((parameter for parameter in parameters if parameter.requires_grad), None)
        if watched is not None:
            self._handles = [
                watched.register_hook(only_looking(lambda _: self._arrives(watched))),
                watched.register_post_accumulate_grad_hook(only_looking(self._accumulated)),
            ]

    def stop(self) -> None:
        """The parameter is as it was."""
        for handle in self._handles:
            handle.remove()

    def give(self, value: Tensor | float, *, add: bool = False) -> None:
        """A loss; of several numbers their mean.

        Args:
            add: are the losses before one step summed, not averaged?

        Raises:
            ArgumentError: it is that of a step that has been taken.
        """
        if self._steps and not self._given_in_time and not self._backward_passes:
            raise ArgumentError(
                f"a loss was given after step {self._steps - 1} had been taken, of which it may be: call "
                "recorder.loss(…) before optimizer.step(), from the first step on (that of a closure is recorded by "
                "itself)"
            )
        self._given.append(_number(value))
        self._add = add

    def take(self, device: torch.device, of_closure: Any = None) -> Tensor | None:
        """The loss of the step that is taken now: of what was given, else what the closure returned."""
        if self._given:
            self._given_in_time = True
            losses = torch.stack([loss.to(device) for loss in self._given])
            return losses.sum() if self._add else losses.mean()
        return None if of_closure is None else _number(of_closure).to(device)

    def step_ended(self) -> None:
        """What was given up to here belongs to no later step."""
        self._steps += 1
        self.clear()

    def clear(self) -> None:
        """Forget what was given."""
        self._given = []
        self._backward_passes = self._before_first = self._before_last = 0

    def _arrives(self, parameter: nn.Parameter) -> None:
        """A gradient is there, and is about to be added to those before; or `autograd.grad` has asked for it."""
        self._restarts = self._backward_passes > 0 and self._is_empty(parameter.grad)

    def _is_empty(self, gradient: Tensor | None) -> bool:
        if gradient is None:
            return True
        written = gradient._version != self._version
        return written and not bool((gradient != 0).any())

    def _accumulated(self, parameter: Tensor) -> None:
        """A backward pass has been through the parameter."""
        self._version = None if parameter.grad is None else parameter.grad._version
        if self._restarts:
            self._restarts = False
            self.dropped += 1
            # The losses of the passes before go: all, where a loss comes after its backward pass.
            del self._given[: self._before_last if self._before_first else None]
            self._backward_passes = 0
        self._before_last = len(self._given)
        if not self._backward_passes:
            self._before_first = self._before_last
        self._backward_passes += 1


def _number(value: Tensor | float) -> Tensor:
    """A scalar of at least float32; a copy, for a loop may go on adding to it."""
    if not isinstance(value, Tensor):
        return torch.tensor(float(value), dtype=torch.float64, device="cpu")
    wide = value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)
    return wide.reshape(()) if wide.numel() == 1 else wide.mean()
