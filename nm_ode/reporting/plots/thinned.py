"""Lines of long runs: fewer points than there are records, and none of what is out of the ordinary left out."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

Array = NDArray[np.float64]

_EACH = 6  # points of a stretch: first and last, smallest and largest, the last before a gap, and the gap


def draw_line(axes: Axes, times: Array, values: Array, most: int, **style: Any) -> None:
    """A line through no more than twice `most` points; of one record a point, for a line of it is not seen."""
    at = outline(values, most)
    if len(times) == 1:
        style = {**style, "marker": "o", "ms": 4}
    axes.plot(times[at], values[at], **style)


def outline(values: Array, most: int) -> NDArray[np.int_]:
    """Places of the points of a line: all, or of each of equal stretches those that bound it, and a gap.

    A spike, the end and where values cease to be finite are seen, however long the line is.
    """
    count = len(values)
    if count <= 2 * most:
        return np.arange(count)
    edges = np.linspace(0, count, max(2 * most // _EACH, 1) + 1).round().astype(int)
    finite = np.isfinite(values)
    low, high = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
    found: list[int] = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        found += [
            start,
            stop - 1,
            start + int(low[start:stop].argmin()),
            start + int(high[start:stop].argmax()),
        ]
        if not finite[start:stop].all():
            gap = start + int((~finite[start:stop]).argmax())
            found += [max(gap - 1, start), gap]
    return np.unique(found)
