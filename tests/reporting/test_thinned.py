"""Lines of long runs show what is out of the ordinary."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from nm_ode.reporting.plots.thinned import draw_line, outline


@pytest.mark.parametrize("count", [601, 7_919, 100_000])
def test_a_spike_the_end_and_a_gap_are_seen(count: int) -> None:
    values = np.sin(np.arange(count) / count)
    high, low, gap = count // 3 + 1, count // 2 + 1, count - count // 5
    values[high], values[low], values[gap] = 50.0, -50.0, np.nan
    at = outline(values, 300)
    assert len(at) <= 600
    assert {0, count - 1, high, low, gap} <= set(at.tolist())
    assert np.diff(at).max() <= -(-count // 100)
    np.testing.assert_array_equal(outline(values[:600], 300), np.arange(600))


def test_what_ends_in_nan_is_drawn_up_to_there() -> None:
    values = np.where(np.arange(5000) < 3210, 1.0, np.nan)
    at = outline(values, 100)
    assert {3209, 3210} <= set(at.tolist())
    assert len(outline(np.full(5000, np.nan), 100))


def test_one_record_is_a_point() -> None:
    axes = Figure().subplots()
    draw_line(axes, np.zeros(1), np.ones(1), 300)
    assert axes.lines[0].get_marker() == "o"
