"""How far two series of one run go together, and on how many points of their own that rests."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_STILL = 1e-9  # of its size: a series that moves less is constant but for rounding


class Correlation(NamedTuple):
    """Pearson's correlation of two series.

    Attributes:
        value: NaN where one of them does not move, or there are fewer than three points.
        points: at how many places both are known.
        independent: as many independent points would have as uncertain a correlation.
    """

    value: float
    points: int
    independent: float

    @property
    def standard_error(self) -> float:
        """Of the correlation, (1 − r²)/√(n − 1) with the independent points; NaN where these are fewer than three."""
        if not self.independent >= 3:
            return math.nan
        return (1 - self.value**2) / math.sqrt(self.independent - 1)


def correlation(one: ArrayLike, other: ArrayLike) -> Correlation:
    """Of two series at the same places, NaN where they are not known.

    Neighbours in time are alike, so n points count for fewer (Bartlett 1935): n/(1 + 2 Σ_j (1 − j/n) ρ_j ρ'_j) with the
    autocorrelations of both, up to the first lag at which one of them is not positive.
    """
    pair = np.stack([np.asarray(series, dtype=np.float64) for series in (one, other)])
    pair = pair[:, np.isfinite(pair).all(axis=0)]
    count = pair.shape[1]
    if count < 3:
        return Correlation(math.nan, count, math.nan)
    centred = pair - pair.mean(axis=1, keepdims=True)
    sizes, spreads = np.abs(pair).max(axis=1), np.linalg.norm(centred, axis=1)
    if (spreads <= _STILL * sizes * math.sqrt(count)).any():
        return Correlation(math.nan, count, math.nan)
    value = float(centred[0] @ centred[1] / (spreads[0] * spreads[1]))
    lagged = np.stack([_autocorrelation(series)[1:] for series in centred])
    ends = np.flatnonzero((lagged <= 0).any(axis=0))
    alike = lagged[:, : ends[0] if ends.size else None].prod(axis=0)
    lags = np.arange(1, len(alike) + 1)
    independent = count / (1 + 2 * float(((1 - lags / count) * alike).sum()))
    return Correlation(min(max(value, -1.0), 1.0), count, independent)


def _autocorrelation(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """ρ_0 = 1, ρ_1, …, by the transform of the series beside as many zeros."""
    count = len(centred)
    power = np.abs(np.fft.rfft(centred, 2 * count)) ** 2
    products = np.fft.irfft(power, 2 * count)[:count]
    return np.asarray(products / products[0])
