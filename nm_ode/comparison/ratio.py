"""A ratio that says NaN where there is nothing to compare with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """top / bottom, broadcast; NaN where bottom is zero."""
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0))
