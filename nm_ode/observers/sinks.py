"""Where observers' numbers go: memory, or a store, some steps at a time, so that no step waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

_BLOCK = 256  # small observations that stay on a device before they are fetched together
_GROWTH = 2**20  # bytes that are made ready at first where nobody knows how many observations will come
_NUMBER = 8  # bytes of one
_LARGE = 4096  # entries from which on an observation is copied to the host at once


Fetch: TypeAlias = Callable[[], np.ndarray]
"""Gives rows; it may wait for the device, and is called from another thread."""


class Sink(Protocol):
    """Takes the observations of one observer."""

    def take(self, values: Mapping[str, Any]) -> None:
        """One observation: name → tensor or number."""
        ...

    def arrays(self, count: int) -> dict[str, np.ndarray]:
        """The first `count` observations of each name."""
        ...

    def since(self, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
        """The observations of each name after the first so many: views."""
        ...

    def put(self, observations: Mapping[str, np.ndarray]) -> None:
        """Add several observations of each name."""
        ...


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
            few = max(1, min(64, _GROWTH // max(1, value.nbytes)))
            more = np.empty((2 * row + few, *rows.shape[1:]), rows.dtype)
            more[:row] = rows
            self._rows[name] = rows = more
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


class StreamSink:
    """The observations of one observer until they are handed on; none is kept after that.

    Attributes:
        bytes: of what waits here.
        counts: name → how many observations came in all.
    """

    def __init__(self) -> None:
        self._host = MemorySink(0)
        self._device: dict[str, list[Tensor]] = {}
        self.bytes, self.counts = 0, dict[str, int]()

    def take(self, values: Mapping[str, Any]) -> None:
        """One observation: name → tensor or number, which is copied."""
        host: dict[str, Any] = {}
        for name, value in values.items():
            self.counts[name] = self.counts.get(name, 0) + 1
            self.bytes += value.numel() * value.element_size() if isinstance(value, Tensor) else _NUMBER
            if isinstance(value, Tensor) and value.device.type == "cuda":
                self._device.setdefault(name, []).append(value.detach().clone())
            else:
                host[name] = _held(value.detach().cpu()) if isinstance(value, Tensor) else value
        self._host.take(host)

    def drain(self) -> dict[str, Fetch]:
        """Hand on what waits here."""
        found = {name: _at_hand(rows) for name, rows in self._host.since({}).items()}
        for name, tensors in self._device.items():
            found[name] = _on_its_way(_held(torch.stack(tensors)))
        most = max((len(rows) for rows in self._host.since({}).values()), default=0)
        self._host, self._device, self.bytes = MemorySink(most), {}, 0
        return found

    def arrays(self, count: int) -> dict[str, np.ndarray]:
        """Nothing is kept here."""
        return {}

    def since(self, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Nothing is kept here."""
        return {}

    def put(self, observations: Mapping[str, np.ndarray]) -> None:
        """Nothing is kept here."""
        raise NotImplementedError("a store is gone on with by its writer")


def _held(value: Any) -> Any:
    """What a store holds: half precision is held in float32."""
    return (
        value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.half) else value
    )


def _at_hand(rows: np.ndarray) -> Fetch:
    return lambda: rows


def _on_its_way(rows: Tensor) -> Fetch:
    """Rows that are copied from a CUDA device while it goes on; who fetches them waits for the copy."""
    host = torch.empty(rows.shape, dtype=rows.dtype, device="cpu", pin_memory=True)
    host.copy_(rows, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(rows.device))

    def fetched() -> np.ndarray:
        done.synchronize()
        return host.numpy()

    return fetched
