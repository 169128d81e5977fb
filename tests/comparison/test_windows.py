"""Averages over a few steps: exact for an oscillation of period two on a straight path, of second order otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nm_ode import ArgumentError
from nm_ode.comparison import THREE_STEPS, Window, gaussian_window, windows
from nm_ode.comparison.windows import by_blocks, oscillation, time_average, variance

NUMBERS = st.floats(-5, 5)
WINDOWS = st.sampled_from([THREE_STEPS, gaussian_window(1.0), gaussian_window(2.3)])


@settings(max_examples=30, deadline=None)
@given(WINDOWS, st.integers(0, 2**32 - 1), NUMBERS)
def test_an_alternating_run_about_a_straight_path_is_taken_apart(
    window: Window, seed: int, speed: float
) -> None:
    start, swing = np.random.default_rng(seed).normal(size=(2, 3))
    k = np.arange(45)[:, None]
    path, alternating = start + 0.1 * speed * k, (-1.0) ** k * swing
    left = window.alternating * alternating
    inside = slice(window.reach, 45 - window.reach)
    found = time_average(path + alternating, window)
    np.testing.assert_allclose(found[inside], (path + left)[inside], atol=1e-12)
    assert np.isnan(found[: window.reach]).all()
    assert np.isnan(found[45 - window.reach :]).all()
    squares = (oscillation(path + alternating, window) ** 2).sum(axis=1)
    middle = variance(squares, window)[2 * window.reach : 45 - 2 * window.reach]
    np.testing.assert_allclose(middle, swing @ swing, rtol=1e-9, atol=1e-12)


def test_three_steps_leave_nothing_of_an_alternating_sign() -> None:
    assert THREE_STEPS.alternating == 0
    assert THREE_STEPS.variance_factor == 1
    # A Gaussian is a low pass: of frequency ½ it leaves 2 exp(−π²s²/2), the two aliases together.
    assert gaussian_window(1.0).alternating == pytest.approx(2 * math.exp(-(math.pi**2) / 2), rel=0.05)


def test_what_bends_and_what_grows_are_left_to_second_order() -> None:
    """A path w(hk) and an amplitude δ(hk): the average is w + h²w″/4 − (−1)^k h²δ″/4, up to h⁴."""
    errors = []
    for h in (0.1, 0.05):
        s = h * np.arange(round(2 / h) + 1)
        signs = (-1.0) ** np.arange(len(s))
        found = time_average(np.sin(s) + signs * np.exp(s), THREE_STEPS)[1:-1]
        expected = np.sin(s) - h**2 * (np.sin(s) + signs * np.exp(s)) / 4
        errors.append(np.abs(found - expected[1:-1]).max())
        assert np.abs(found - np.sin(s)[1:-1]).max() > 20 * errors[-1]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.15)


def test_long_rows_are_averaged_some_at_a_time(monkeypatch) -> None:
    rows, window = np.random.default_rng(0).normal(size=(50, 7)), gaussian_window(1.5)
    monkeypatch.setattr(windows, "_BLOCK_BYTES", 8 * 7 * 4)
    blocks = list(by_blocks(rows, window))
    assert len(blocks) == 13
    together = np.concatenate([means for _, means in blocks])
    np.testing.assert_allclose(together, time_average(rows, window), rtol=1e-12)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 0.3, 0.5), (1.0, 1.0, 1.0), (1.0,), (0.1, 0.8, 0.1)])
def test_weights_that_average_nothing_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ArgumentError, match="weights"):
        Window(weights, "mine")


@pytest.mark.parametrize("width", [0.5, math.inf, math.nan, "wide"])
def test_a_gaussian_window_has_a_width_in_steps(width: object) -> None:
    with pytest.raises(ArgumentError, match="width"):
        gaussian_window(width)  # type: ignore[arg-type]
