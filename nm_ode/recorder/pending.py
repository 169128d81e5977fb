"""Which loss belongs to which step: those that were given since the last one, as far as their gradients are in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.errors import ArgumentError
from nm_ode.recorder.backward import BackwardPasses


class PendingLosses:
    """The losses that were given and that no step has taken yet.

    A step that a GradScaler leaves out calls no hook of an optimiser; what shows it is that the next backward pass
    starts from an empty gradient again, and then the losses before it are not those of the step to come.

    Args:
        in_closure: is the optimiser's step under way, which calls a closure? What it throws away is no step.
        told: has the gradient of the step under way been seen? Later passes are the optimiser's own.
    """

    def __init__(self, in_closure: Callable[[], bool], told: Callable[[], bool]) -> None:
        self._dropped = 0
        self._in_closure = in_closure
        self._passes = BackwardPasses(self._passed, self._restarted, lambda: not told())
        self._given: list[Tensor] = []
        self._first = self._last = 0  # losses that were there at the first pass and at the last
        self._before = (0, 0)  # these, before the pass that is under way
        self._steps = 0
        self._given_in_time = False  # once at least
        self._add = False

    def watch(self, parameters: Sequence[nn.Parameter]) -> None:
        """See backward passes, by the gradients of these parameters."""
        self._passes.watch(parameters)

    def stop(self, *, whole: bool) -> None:
        """The parameters are as they were.

        Args:
            whole: did the loop end where it meant to, not within a step?
        """
        if whole and self._passes.is_thrown_away:
            self._dropped += 1
        self._passes.forget()
        self._passes.stop()

    @property
    def dropped(self) -> int:
        """How often a gradient was thrown away without a step: of the last one that is so if it was set to nothing, or
        is not finite.
        """
        return self._dropped + self._passes.is_thrown_away

    def give(self, value: Tensor | float, *, add: bool = False) -> None:
        """A loss; of several numbers their mean.

        Args:
            add: are the losses before one step summed, not averaged?

        Raises:
            ArgumentError: it is that of a step that has been taken, or one of several is to be added and another not.
        """
        if self._steps and not self._given_in_time and not self._passes.count:
            raise ArgumentError(
                f"a loss was given after step {self._steps - 1} had been taken, of which it may be: call "
                "recorder.loss(…) before optimizer.step(), from the first step on (that of a closure is recorded by "
                "itself)"
            )
        if self._given and add != self._add:
            raise ArgumentError(
                f"of the losses before step {self._steps} one was given with add=True and another without: they are "
                "summed, or averaged; give add alike to all"
            )
        self._passes.look()
        self._given.append(_number(value))
        self._add = add

    def take(
        self, gradients: Sequence[Tensor | None], device: torch.device, of_closure: Any = None
    ) -> Tensor | None:
        """The loss of the step that is taken now: of what was given, else what the closure returned.

        Args:
            gradients: that the step takes, one for each of the parameters.
        """
        self._passes.took(gradients)
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
        self._first = self._last = 0
        self._passes.forget()

    def _passed(self) -> None:
        self._before = self._first, self._last
        self._last = len(self._given)
        if self._passes.count == 1:
            self._first = self._last

    def _restarted(self, late: bool) -> None:
        """The losses of the passes before go: all, where a loss comes after its backward pass."""
        self._dropped += not self._in_closure()
        first, last = self._before if late else (self._first, self._last)
        del self._given[: last if first else None]
        self._first = self._last = len(self._given)


def _number(value: Tensor | float) -> Tensor:
    """A scalar of at least float32; a copy, for a loop may go on adding to it."""
    if not isinstance(value, Tensor):
        return torch.tensor(float(value), dtype=torch.float64, device="cpu")
    wide = value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)
    return wide.reshape(()) if wide.numel() == 1 else wide.mean()
