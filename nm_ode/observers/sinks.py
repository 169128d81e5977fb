"""Where observers' numbers go: memory, some steps at a time, so that no step waits for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BLOCK = 256  # small observations that stay on a device before they are fetched together
_LARGE = 4096  # entries from which on an observation is copied to the host at once


class MemorySink:
    """The observations of one observer as arrays on the host.

    Args:
        capacity: the most observations that will come; more if it is not known.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: dict[str, np.ndarray] = {}
        self._filled: dict[str, int] = {}
        self._pending: dict[str, list[Tensor]] = {}

    def take(self, values: Mapping[str, Any]) -> None:
        """One observation: name → tensor or number. What is on the host or large is copied at once."""
        for name, value in values.items():
            if not isinstance(value, Tensor):
                self._add(name, np.asarray(value, dtype=np.float64))
            elif value.device.type == "cpu":
                self._add(name, value.detach().numpy())
            elif value.numel() > _LARGE:
                self._fetch(name)
                self._add(name, value.detach().cpu().numpy())
            else:
                pending = self._pending.setdefault(name, [])
                pending.append(value.detach().clone())  # it may be a view of what the next step writes to
                if len(pending) >= _BLOCK:
                    self._fetch(name)

    def _fetch(self, name: str) -> None:
        pending = self._pending.pop(name, None)
        if pending:
            for value in torch.stack(pending).cpu().numpy():
                self._add(name, value)

    def _add(self, name: str, value: np.ndarray) -> None:
        if name not in self._rows:
            # What is never written takes no memory.
            self._rows[name] = np.empty((self._capacity, *value.shape), dtype=value.dtype)
            self._filled[name] = 0
        rows, row = self._rows[name], self._filled[name]
        if rows.dtype != value.dtype:  # a whole number first, a fraction later
            self._rows[name] = rows = rows.astype(np.result_type(rows, value), copy=False)
        if row == len(rows):  # more than were said to come: of a run whose end nobody knew
            more = np.empty((max(64, len(rows)), *rows.shape[1:]), rows.dtype)
            self._rows[name] = rows = np.concatenate([rows, more])
        rows[row] = value
        self._filled[name] = row + 1

    def arrays(self, count: int) -> dict[str, np.ndarray]:
        """The first `count` observations of each name."""
        return {name: rows[:count] for name, rows in self.since({}).items()}

    def since(self, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
        """The observations of each name after the first so many: views."""
        for name in list(self._pending):
            self._fetch(name)
        return {name: rows[counts.get(name, 0) : self._filled[name]] for name, rows in self._rows.items()}

    def put(self, observations: Mapping[str, np.ndarray]) -> None:
        """Add several observations of each name."""
        for name, values in observations.items():
            if len(values):
                self._add(name, values[0])
                first = self._filled[name]
                self._filled[name] = last = first + len(values) - 1
                self._rows[name][first:last] = values[1:]
