"""Charges in a loop whose optimiser has several groups of parameters: which of them take steps of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.charges.settings import SETTINGS, Settings
from nm_ode.observers.base import Coordinates, Groups
from nm_ode.symmetries import Symmetry

CLASS = "charge_class"
"""The dimension of classes: charges whose parameters lie in the same groups are one."""


class Classes:
    """Charges by the groups in which their parameters lie, and SGD's own numbers of each class in a step.

    Args:
        symmetries: whose charges are recorded.
        groups: of the loop's optimiser.
        charges: the dimension along which charges lie.

    Attributes:
        of_charge: shape (C,), the number of each charge's class.
    """

    def __init__(self, symmetries: Sequence[Symmetry], groups: Groups, charges: str) -> None:
        self._groups, self._charges = groups, charges
        touched = [groups.of(symmetry.shapes) for symmetry in symmetries]
        self._keys = list(dict.fromkeys(touched))
        first = [next(i for i, key in enumerate(touched) if key == one) for one in self._keys]
        self._parameters = [next(iter(symmetries[i].shapes)) for i in first]
        numbers = [self._keys.index(key) for key in touched]
        self.of_charge = np.repeat(np.array(numbers, dtype=np.int64), [one.count for one in symmetries])
        self._on_device: Tensor | None = None

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def coordinates(self) -> Coordinates:
        """Each charge's class, and a parameter of each class, whose learning rate is the class's."""
        return {
            "class_of_charge": (self._charges, self.of_charge),
            "class_parameter": (CLASS, np.array(self._parameters, dtype=object)),
        }

    @property
    def hyperparameters(self) -> list[Mapping[str, Any] | None]:
        """Of each class in the step that is seen; None where its groups take steps that differ."""
        settings = self._groups.settings
        return [self._alike([settings[i] for i in key]) for key in self._keys]

    @property
    def merged(self) -> dict[str, Any]:
        """What a law has to remember for any of the classes."""
        found = [one for one in self.hyperparameters if one is not None]
        return {
            "momentum": max((float(one["momentum"]) for one in found), default=0.0),
            "nesterov": any(one["nesterov"] for one in found),
        }

    def settings(self, *, first: bool) -> list[Settings | None]:
        """Of each class, as laws take them.

        Args:
            first: is it the first step of the run?
        """
        return [
            None if one is None else Settings.of(one, float(one["lr"]), first=first)
            for one in self.hyperparameters
        ]

    @property
    def rows(self) -> np.ndarray:
        """What SETTINGS names of each class, shape (K, 4); NaN where its groups differ."""
        return np.array(
            [
                [np.nan if one is None else float(one[name]) for name in SETTINGS]
                for one in self.hyperparameters
            ]
        ).reshape(len(self), len(SETTINGS))

    def rates(self, device: torch.device) -> Tensor:
        """Of each charge, shape (C,); infinite where it is 0, and NaN where its groups differ."""
        rates = [np.nan if one is None else float(one["lr"]) or np.inf for one in self.hyperparameters]
        if self._on_device is None:
            self._on_device = torch.from_numpy(self.of_charge).to(device)
        return torch.tensor(rates, dtype=torch.float64).to(device, non_blocking=True)[self._on_device]

    @staticmethod
    def _alike(chosen: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        names = ("lr", *SETTINGS)
        same = chosen and all(one[name] == chosen[0][name] for one in chosen for name in names)
        return chosen[0] if same else None
