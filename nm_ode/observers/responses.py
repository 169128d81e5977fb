"""What the laws of motion need of the steps between two records, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.charges.recursion import FORCES, Recursion
from nm_ode.charges.settings import Settings
from nm_ode.charges.summed import response_names, state_dim
from nm_ode.observers.charge_classes import CLASS
from nm_ode.results import Variable

Array = NDArray[np.float64]

CHARGE_DEGREE = "charge_degree"
"""The dimension of degrees, 1 and 2: of charges that are linear in theta, and of all others."""

DEGREES = (1, 2)
_DRIVEN, _RESIDUAL = (1.0, 1.0, 0.0), (0.0, 0.0, 1.0)  # which of FORCES act


class Responses:
    """φ and M of some laws (`charges/recursion.py`) since the last record.

    All laws are one recursion with a block for each, so that a step is two products of small matrices with a matrix of
    the charges, in float64.

    Args:
        laws: name → recursion, and whether it takes the constraint's residual: then what that does is a block of its
            own.
        hyperparameters: of the run's SGD, by name.
        translation: shape (C,), bool: charges that are linear in theta; on the device.
        classes: shape (C,), of a loop whose optimiser has several groups: the number of each charge's class; None where
            all are of one.

    Attributes:
        steps: how many were added since the last record.
    """

    def __init__(
        self,
        laws: Mapping[str, tuple[Recursion, bool]],
        hyperparameters: Mapping[str, Any],
        translation: Tensor,
        classes: Tensor | None = None,
    ) -> None:
        self.laws = dict(laws)
        self._entries = {law: one.state(hyperparameters) for law, (one, _) in laws.items()}
        self._blocks: list[tuple[str, Recursion, tuple[float, ...], slice]] = []
        for law, (recursion, takes_residual) in laws.items():
            for acting in (_DRIVEN, _RESIDUAL)[: 2 if takes_residual else 1]:
                first = self._blocks[-1][-1].stop if self._blocks else 0
                rows = slice(first, first + len(self._entries[law]))
                self._blocks.append((law, recursion, acting, rows))
        self._rows = self._blocks[-1][-1].stop if self._blocks else 0
        self._count, self._device = len(translation), translation.device
        of_degree = {1: translation, 2: ~translation}
        self._by_class = classes is not None
        self._classes = 1 if classes is None else int(classes.max()) + 1
        one_class = torch.zeros_like(translation, dtype=torch.int64) if classes is None else classes
        self._members = {
            (number, degree): (of_degree[degree] & (one_class == number)).nonzero()[:, 0]
            for number in range(self._classes)
            for degree in DEGREES
        }
        self._of: list[Settings | None] = []
        self._kinds: list[Any] | None = None
        self.clear()

    @property
    def takes_residual(self) -> bool:
        """Does the constraint's residual act on any of the laws?"""
        return any(takes for _, takes in self.laws.values())

    def clear(self) -> None:
        """A record has been made."""
        self.steps = 0
        self._propagators = {key: np.eye(self._rows) for key in self._members}
        self._sums = {
            key: torch.zeros(self._rows, len(members), dtype=torch.float64, device=self._device)
            for key, members in self._members.items()
        }

    def add(self, of: Settings | Sequence[Settings | None], forces: Tensor) -> None:
        """A step has been taken.

        Args:
            of: SGD's own numbers, of each class if there are several; None of one whose groups differ.
            forces: shape (3, C), what FORCES says.
        """
        each: list[Settings | None] = [of] if isinstance(of, Settings) else list(of)
        if each != self._of:
            self._matrices = {key: self._step(each[key[0]], key[1]) for key in self._members}
            self._on_device = {
                key: tuple(torch.from_numpy(one).to(self._device, non_blocking=True) for one in pair)
                for key, pair in self._matrices.items()
            }
            self._of = each
        self.steps += 1
        kinds = [None if one is None else [one.momentum > 0, one.dampening, one.nesterov] for one in each]
        self._kinds = kinds if self._kinds is None else self._kinds
        for key, members in self._members.items():
            # Where momentum begins or ends in the middle, so does the velocity (see charges.driven.CHANGED).
            moves = self._matrices[key][0] * (1.0 if kinds[key[0]] == self._kinds[key[0]] else np.nan)
            self._propagators[key] = moves @ self._propagators[key]
            if len(members):
                keeps, driven = self._on_device[key]
                mine = forces if len(members) == self._count else forces[:, members]
                self._sums[key] = torch.addmm(driven @ mine, keeps, self._sums[key])

    def _step(self, of: Settings | None, degree: int) -> tuple[Array, Array]:
        """A and B of all blocks, shapes (rows, rows) and (rows, 3)."""
        keeps, driven = np.zeros((self._rows, self._rows)), np.zeros((self._rows, len(FORCES)))
        if of is None:
            return keeps * np.nan, driven * np.nan
        for _, recursion, acting, rows in self._blocks:
            a, b = recursion.step(of, degree)
            # A class without momentum remembers less than one with it, and so does a run that begins without.
            size = min(len(a), rows.stop - rows.start)
            mine = slice(rows.start, rows.start + size)
            keeps[mine, mine], driven[mine] = a[:size, :size], b[:size] * np.array(acting)
        return keeps, driven

    def variables(self, charges: str) -> dict[str, Variable]:
        """What `values` gives.

        Args:
            charges: the dimension along which they lie.
        """
        declared = {}
        for law, _, acting, _ in self._blocks:
            response, propagator = response_names(law, residual=acting == _RESIDUAL)
            dim = state_dim(law)
            force = "the constraint's residual" if acting == _RESIDUAL else "the drivers"
            state = f"law {law!r}, state ({', '.join(self._entries[law])})"
            declared[response] = Variable(
                (dim, charges), f"{state}: what {force} added since the last record"
            )
            declared[propagator] = Variable(
                (*([CLASS] if self._by_class else []), CHARGE_DEGREE, dim, f"{dim}_before"),
                f"{state}: what the steps since the last record make of it, for charges of degree 1 and 2",
            )
        return declared

    def values(self) -> dict[str, Any]:
        """φ of each block, shape (n, C), on the device; M of each law by degree, shape (2, n, n), of several classes
        (K, 2, n, n).
        """
        whole = torch.zeros(self._rows, self._count, dtype=torch.float64, device=self._device)
        for key, members in self._members.items():
            whole[:, members] = self._sums[key]
        found: dict[str, Any] = {}
        for law, _, acting, rows in self._blocks:
            response, propagator = response_names(law, residual=acting == _RESIDUAL)
            found[response] = whole[rows]
            moves = np.stack([one[rows, rows] for one in self._propagators.values()])
            shape = (self._classes, len(DEGREES), *moves.shape[1:])
            found[propagator] = moves.reshape(shape if self._by_class else shape[1:])
        return found

    def memory(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "steps": self.steps,
            "sums": list(self._sums.values()),
            "propagators": list(self._propagators.values()),
            "kinds": self._kinds,
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""
        self.steps = memory["steps"]
        self._sums = dict(zip(self._members, memory["sums"], strict=True))
        self._propagators = dict(zip(self._members, memory["propagators"], strict=True))
        self._kinds = memory["kinds"]
