"""The optimiser's groups of parameters: what holds for which parameter in a step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from nm_ode.recorder.known import plain_hyperparameters, rate_of


class Groups:
    """Which parameter lies in which group, and what the groups say in the step that is seen.

    Args:
        optimizer: the user's own.
        followed: name → parameter.

    Attributes:
        numbers: of each followed parameter's group; None for one that the optimiser has not got.
        settings: numbers and switches of each group, by torch's names, at the start of the step.
        changes: how often a parameter has come to another group.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, followed: Mapping[str, nn.Parameter]) -> None:
        self._optimizer, self._followed = optimizer, dict(followed)
        self._seen: list[list[int]] = []
        self.changes = 0
        self.numbers: list[int | None] = []
        self.settings: list[Mapping[str, Any]] = []
        self.look()

    def look(self) -> list[str]:
        """See what the groups are now.

        Returns:
            Names of the parameters that have come to another group, or into or out of the optimiser, since the look
            before.
        """
        groups = self._optimizer.param_groups
        self.settings = [plain_hyperparameters(group) for group in groups]
        seen = [[id(parameter) for parameter in group["params"]] for group in groups]
        if seen == self._seen:
            return []
        first, self._seen = not self._seen, seen
        self.changes += 1
        number = {one: i for i, group in enumerate(seen) for one in group}
        before, self.numbers = self.numbers, [number.get(id(p)) for p in self._followed.values()]
        if first:
            return []
        pairs = zip(self._followed, before, self.numbers, strict=True)
        return [name for name, was, now in pairs if was != now]

    def of(self, names: Collection[str]) -> tuple[int, ...]:
        """Numbers of the groups in which these parameters lie."""
        pairs = zip(self._followed, self.numbers, strict=True)
        return tuple(sorted({number for name, number in pairs if name in names and number is not None}))

    @property
    def rates(self) -> list[float]:
        """The learning rate of each followed parameter; 0 for one that the optimiser has not got."""
        rates = [rate_of(settings) for settings in self.settings]
        return [0.0 if number is None else rates[number] for number in self.numbers]

    def contains(self, parameter: nn.Parameter) -> bool:
        """Has the optimiser this one?"""
        return any(id(parameter) in group for group in self._seen)
