"""Correlation along a run, and on how many independent points it rests."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nm_ode.comparison import correlation


def autoregressive(phi: float, noise: np.ndarray) -> np.ndarray:
    found = np.zeros(len(noise))
    for k in range(1, len(noise)):
        found[k] = phi * found[k - 1] + noise[k]
    return found


def test_it_is_pearsons() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 200))
    other += one
    found = correlation(one, other)
    assert found.value == pytest.approx(np.corrcoef(one, other)[0, 1], rel=1e-12)
    assert (found.points, found.standard_error) == (
        200,
        pytest.approx((1 - found.value**2) / math.sqrt(found.independent - 1)),
    )


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_neighbours_that_are_alike_count_for_fewer_points(phi: float) -> None:
    """Of two autoregressive series of the same φ, n points are worth n (1 − φ²)/(1 + φ²)."""
    noise = np.random.default_rng(1).normal(size=(2, 20000))
    found = correlation(autoregressive(phi, noise[0]), autoregressive(phi, noise[1]))
    assert found.independent / found.points == pytest.approx((1 - phi**2) / (1 + phi**2), rel=0.1)
    assert abs(found.value) < 4 / math.sqrt(found.independent)


def test_places_that_are_not_known_are_left_out() -> None:
    one, other = np.random.default_rng(2).normal(size=(2, 50))
    holed = one.copy()
    holed[::7] = np.nan
    there = np.isfinite(holed)
    assert correlation(holed, other)[:2] == correlation(one[there], other[there])[:2]


@pytest.mark.parametrize(
    "other", [[1.0] * 5, [1 + 1e-12, 1.0, 1.0, 1.0, 1.0], [1.0, np.nan, 2.0, np.nan, np.nan]]
)
def test_where_nothing_moves_or_little_is_known_there_is_none(other: list[float]) -> None:
    found = correlation([1.0, 2.0, 3.0, 4.0, 6.0], other)
    assert math.isnan(found.value)
    assert math.isnan(found.standard_error)
