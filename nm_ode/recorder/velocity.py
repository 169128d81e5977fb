"""The update of torch's SGD with momentum as its rule has it, for which no copy of the parameters is needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nm_ode.errors import ArgumentError
from nm_ode.parameters import Layout, Parts, Scaled

_FIRST, _EVERY = 2, 256  # steps whose update is held against the rule: the first, and one in so many
_ROUNDINGS = 8  # of theta, by which an update and its rule may differ


class VelocityRule:
    """−lr·v: what the optimiser adds to theta, before theta is rounded.

    Args:
        optimizer: torch's own SGD, with momentum and without Nesterov.
        layout: of theta.
        parameters: one for each slot of the layout.

    Raises:
        ArgumentError: another optimiser, or parameters in half precision, whose roundings are as large as updates.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, layout: Layout, parameters: Sequence[nn.Parameter]
    ) -> None:
        groups = optimizer.param_groups
        if type(optimizer) is not torch.optim.SGD or any(
            not group["momentum"] or group["nesterov"] for group in groups
        ):
            raise ArgumentError(
                "update_by_rule is for torch.optim.SGD with momentum and without Nesterov: leave it out, and the "
                "update is the difference of the parameters"
            )
        if any(torch.finfo(parameter.dtype).bits < 32 for parameter in parameters):
            raise ArgumentError("update_by_rule is for parameters in float32 or float64: leave it out")
        self._optimizer, self._layout, self._parameters = optimizer, layout, parameters
        self._factors: list[float] = []
        self._steps = 0

    @property
    def is_checked(self) -> bool:
        """Is the step that comes one of those that are held against the rule?"""
        return self._steps < _FIRST or self._steps % _EVERY == 0

    def before_step(self, gradients: Sequence[Tensor | None]) -> None:
        """What has no gradient is not moved, whatever its velocity. What is called after the step may change rates."""
        rates = {id(p): float(group["lr"]) for group in self._optimizer.param_groups for p in group["params"]}
        self._factors = [
            0.0 if gradient is None else -rates.get(id(parameter), 0.0)
            for parameter, gradient in zip(self._parameters, gradients, strict=True)
        ]

    def update(self, velocity: Parts) -> Scaled:
        """Of the step that has been taken."""
        self._steps += 1
        factors = {slot.name: one for slot, one in zip(self._layout.slots, self._factors, strict=True)}
        return Scaled(self._layout.slots, velocity, factors)

    def check(self, update: Scaled, after: Parts, before: Parts) -> None:
        """Hold an update against how the parameters moved.

        Raises:
            ArgumentError: they moved otherwise.
        """
        for name, mine in update.items():
            room = _ROUNDINGS * torch.finfo(mine.dtype).eps * before[name].abs().max()
            if bool((after[name] - before[name] - mine).abs().max() > room + 1e-5 * mine.abs().max()):
                raise ArgumentError(
                    f"update_by_rule: {name} did not move by −lr times the velocity in step {self._steps - 1}, so "
                    "something else moves it within the step too: leave update_by_rule out"
                )
