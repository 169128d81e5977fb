"""Observations on their way to a store: what a track has seen, as rows of arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nm_ode.observers.sinks import Fetch, StreamSink
from nm_ode.results import Variable
from nm_ode.results.stream import Rows


class Drain:
    """Hands on the rows of one observer's variables.

    Args:
        dim: along which they lie.
        declared: the variables.
        filled: names of those that may lack a row where others have one: of updates, where no step follows.
        sink: which takes the observations.
    """

    def __init__(
        self, dim: str, declared: Mapping[str, Variable], filled: frozenset[str], sink: StreamSink
    ) -> None:
        self._dim, self._declared, self._filled, self.sink = dim, declared, filled, sink
        self._seen = 0
        self._given = dict.fromkeys(declared, 0)

    def rows(self, count: int, nothing: Mapping[str, np.ndarray] | None = None) -> list[Rows]:
        """What came since this was last asked.

        Args:
            count: of how many observations; what the sink has beyond them is of one that was broken off, and is lost.
            nothing: given at the end: each variable without a row, for those that never had one.
        """
        self._seen += count
        arrived, found = self.sink.drain(), []
        for name, declared in self._declared.items():
            fetch, here = arrived.get(name), 0
            if fetch is not None:
                here = min(count, self.sink.counts[name] - self._given[name])
            missing = (
                self._seen - self._given[name] - here if nothing is not None and name in self._filled else 0
            )
            if fetch is None and nothing is not None and (missing or not self._given[name]):
                fetch = _at_hand(nothing[name])
            if fetch is not None:
                self._given[name] += here + missing
                found.append(
                    Rows(
                        name,
                        (self._dim, *declared.dims),
                        _cut_and_filled(fetch, here, missing, as_float=name in self._filled),
                        here + missing,
                        declared.long_name,
                        declared.units,
                    )
                )
        self.sink.counts = dict(self._given)
        return found


def coordinate_rows(name: str, dim: str, values: np.ndarray, described: Variable) -> Rows:
    """Rows of a coordinate."""
    return Rows(name, (dim,), _at_hand(values), len(values), described.long_name, described.units)


def _at_hand(rows: np.ndarray) -> Fetch:
    return lambda: rows


def _cut_and_filled(fetch: Fetch, here: int, missing: int, *, as_float: bool) -> Fetch:
    def rows() -> np.ndarray:
        values = fetch()[:here]
        # Whole numbers have no NaN, which stands where a row is missing.
        if as_float and values.dtype.kind in "biu":
            values = values.astype(np.float64)
        if missing:
            values = np.concatenate([values, np.full((missing, *values.shape[1:]), np.nan, values.dtype)])
        return values

    return rows
