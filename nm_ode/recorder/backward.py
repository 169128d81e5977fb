"""Backward passes, as they are seen from hooks on a few parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.loss.guards import only_looking

_MOST = 12  # parameters that are watched


@dataclass(eq=False)
class _Watched:
    """A parameter with hooks.

    Attributes:
        passes: that its gradient is of.
        version: of its gradient after the last of them.
        task: the number that torch gives to the last of them.
        restarts: does the pass that is under way start from an empty gradient again?
    """

    parameter: nn.Parameter
    handles: list[Any] = field(default_factory=list)
    passes: int = 0
    version: int | None = None
    task: int = -1
    restarts: bool = False

    @property
    def is_empty(self) -> bool:
        """Is no gradient there, or one that was set to zero since the last pass?"""
        gradient = self.parameter.grad
        if gradient is None:
            return True
        return gradient._version != self.version and not bool((gradient != 0).any())

    def release(self) -> None:
        """The parameter is as it was."""
        for handle in self.handles:
            handle.remove()


class BackwardPasses:
    """Tells of each backward pass, once, and whether it starts from an empty gradient again.

    The first parameter, the last and one between are watched, for a batch may leave one out, and a loop may freeze one;
    and others, once a step took no gradient of one of these.

    Args:
        passed: called at a pass that adds to the gradient, or begins one.
        restarted: called in place of that where the gradient of the passes before was thrown away; with True, if it
            shows only after `passed` was called of this pass.
        heeded: are passes those of a loop now? Within an optimiser's step they are its own.

    Attributes:
        count: passes since `forget`, or since the gradient was empty.
    """

    def __init__(
        self, passed: Callable[[], None], restarted: Callable[[bool], None], heeded: Callable[[], bool]
    ) -> None:
        self.count = 0
        self._passed, self._restarted, self._heeded = passed, restarted, heeded
        self._parameters: Sequence[nn.Parameter] = ()
        self._watched: list[_Watched] = []
        self._task = -1
        self._has_restarted = False

    def watch(self, parameters: Sequence[nn.Parameter]) -> None:
        """See passes that reach some of these."""
        self._parameters = parameters
        self.look()

    def stop(self) -> None:
        """The parameters are as they were."""
        for one in self._watched:
            one.release()
        self._watched = []

    def took(self, gradients: Sequence[Tensor | None]) -> None:
        """A step took these gradients: a parameter without one shows no passes."""
        reached = {
            id(parameter)
            for parameter, gradient in zip(self._parameters, gradients, strict=True)
            if gradient is not None and parameter.requires_grad
        }
        if any(id(one.parameter) not in reached for one in self._watched):
            self._watch_some([parameter for parameter in self._parameters if id(parameter) in reached])

    def look(self) -> None:
        """See to it that one is watched of the parameters that have a gradient now: a loop may freeze and unfreeze."""
        if not any(one.parameter.requires_grad for one in self._watched):
            self._watch_some([parameter for parameter in self._parameters if parameter.requires_grad])

    def forget(self) -> None:
        """The gradient has been taken, or left."""
        self.count = 0
        for one in self._watched:
            one.passes = 0

    @property
    def is_thrown_away(self) -> bool:
        """Was the gradient of the passes since `forget` set to nothing, or is it not finite?"""
        if not self.count:
            return False
        if any(one.passes and one.is_empty for one in self._watched):
            return True
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        values = [one.coalesce().values() if one.is_sparse else one for one in gradients]
        return not all(bool(torch.isfinite(one).all()) for one in values)

    def _watch_some(self, candidates: Sequence[nn.Parameter]) -> None:
        """The first, the last and one between."""
        last = len(candidates) - 1
        for i in sorted({0, last // 2, last}) if candidates else ():
            if len(self._watched) < _MOST and all(
                one.parameter is not candidates[i] for one in self._watched
            ):
                self._watched.append(self._hooked(candidates[i]))

    def _hooked(self, parameter: nn.Parameter) -> _Watched:
        one = _Watched(parameter)
        one.handles = [
            parameter.register_hook(only_looking(lambda _: self._arrives(one))),
            parameter.register_post_accumulate_grad_hook(only_looking(lambda _: self._accumulated(one))),
        ]
        return one

    def _arrives(self, one: _Watched) -> None:
        """A gradient is there, and is about to be added to those before; or `autograd.grad` has asked for it."""
        one.restarts = one.passes > 0 and self._heeded() and one.is_empty

    def _accumulated(self, one: _Watched) -> None:
        """A backward pass has been through the parameter."""
        gradient = one.parameter.grad
        one.version = None if gradient is None else gradient._version
        if not self._heeded():
            return
        one.task = torch._C._current_graph_task_id()
        one.passes += 1
        begins = one.task != self._task
        if begins:
            self._task, self._has_restarted = one.task, False
        if one.restarts and not self._has_restarted:
            self._has_restarted, self.count = True, 1
            for other in self._watched:
                other.passes = 1 if other.task == self._task else 0
            self._restarted(not begins)
        elif begins:
            self.count += 1
            self._passed()
        one.restarts = False
