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
        capacity: the most observations that will come.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: dict[str, np.ndarray] = {}
        self._filled: dict[str, int] = {}
        self._pending: dict[str, list[Tensor]] = {}

    def take(self, values: Mapping[str, Any]) -> None:
        """One observation: name → tensor or number."""
        for name, value in values.items():
            tensor = observed(value)
            if tensor.device.type == "cpu" or tensor.numel() > _LARGE:
                self._fetch(name)
                self._write(name, tensor[None])
            else:
                pending = self._pending.setdefault(name, [])
                pending.append(tensor.clone())  # it may be a view of what the next step writes to
                if len(pending) >= _BLOCK:
                    self._fetch(name)

    def _fetch(self, name: str) -> None:
        pending = self._pending.pop(name, None)
        if pending:
            self._write(name, torch.stack(pending))

    def _write(self, name: str, block: Tensor) -> None:
        values = block.cpu().numpy()
        if name not in self._rows:
            # What is never written takes no memory.
            self._rows[name] = np.empty((self._capacity, *values.shape[1:]), dtype=values.dtype)
            self._filled[name] = 0
        rows = self._rows[name]
        if rows.dtype != values.dtype:  # a whole number first, a fraction later
            self._rows[name] = rows.astype(np.result_type(rows, values), copy=False)
        start = self._filled[name]
        self._rows[name][start : start + len(values)] = values
        self._filled[name] = start + len(values)

    def arrays(self, count: int) -> dict[str, np.ndarray]:
        """The first `count` observations of each name."""
        for name in list(self._pending):
            self._fetch(name)
        return {name: rows[: min(count, self._filled[name])] for name, rows in self._rows.items()}


def observed(value: Any) -> Tensor:
    """What an observer returned as a tensor; numbers are float64.

    Raises:
        TypeError: it is neither a tensor nor a number nor an array.
        ValueError: it is a list that is no array.
    """
    return value.detach() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
