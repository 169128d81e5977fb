"""Growth of an oscillation past the stability limit: against closed forms and the optimisers' own updates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nm_ode import SGD
from nm_ode.flows.growth import Growth, Recursion, amplitudes, first_above, leaving_size

SETTINGS = [
    (SGD(lr=0.1), Recursion()),
    (SGD(lr=0.1, momentum=0.9), Recursion(0.9)),
    (SGD(lr=0.1, momentum=0.6, dampening=0.4), Recursion(0.6)),
    (SGD(lr=0.1, momentum=0.8, nesterov=True), Recursion(0.8, nesterov=True)),
]


def after_steps(optimizer: SGD, curvatures: np.ndarray, theta: float) -> np.ndarray:
    """|θ| of the optimiser itself on L = λ_k θ²/2, before each step and after the last."""
    at = torch.tensor([theta], dtype=torch.float64)
    state = optimizer.init(at, torch.zeros_like(at))
    found = [theta]
    for curvature in curvatures.tolist():
        state = state + optimizer.increment(state, curvature * state[:1])
        found.append(float(state[0]))
    return np.abs(found)


@pytest.mark.parametrize(("optimizer", "recursion"), SETTINGS, ids=str)
def test_without_noise_it_is_the_optimisers_own_mode(optimizer: SGD, recursion: Recursion) -> None:
    """Through the edge and beyond, from the start's own size; dampening's first step is torch's, undampened."""
    x = np.linspace(0.3, 1.1, 60) * optimizer.stability.limit
    found = amplitudes(x, np.zeros(60), recursion, 1e-12)
    seen = after_steps(optimizer, x / optimizer.stability.step, 1e-12)
    np.testing.assert_allclose(found, seen, rtol=1e-6)


@pytest.mark.parametrize(("optimizer", "recursion"), SETTINGS, ids=str)
@given(share=st.floats(0.02, 3.0))
def test_the_factor_is_the_updates_spectral_radius(
    optimizer: SGD, recursion: Recursion, share: float
) -> None:
    assert Recursion(optimizer.stability.momentum, optimizer.stability.nesterov) == recursion
    x = share * optimizer.stability.limit
    size = optimizer.state_layout(1).size
    unit = torch.eye(size, dtype=torch.float64)
    curvature = x / optimizer.stability.step
    matrix = torch.stack([one + optimizer.increment(one, curvature * one[:1]) for one in unit]).T
    radius = float(torch.linalg.eigvals(matrix).abs().max())
    assert math.exp(recursion.log_factor(x)) == pytest.approx(radius, abs=1e-6)


@settings(max_examples=20)
@given(x=st.floats(0.1, 1.9), noise=st.floats(1e-18, 1e-3))
def test_below_the_edge_plain_descent_keeps_noise_in_bounds(x: float, noise: float) -> None:
    """Its stationary variance is σ²/(1 − (1 − x)²)."""
    steps = 100
    found = amplitudes(np.full(steps, x), np.full(steps, noise), Recursion())
    assert found[-1] == pytest.approx(noise / math.sqrt(1 - (1 - x) ** 2), rel=1e-6)


def test_noise_of_heavy_ball_against_many_runs() -> None:
    generator, runs, steps = np.random.default_rng(0), 4000, 80
    x = np.linspace(3.6, 3.9, steps)
    now = before = np.zeros(runs)
    for here in x:
        now, before = (1.9 - here) * now - 0.9 * before + 1e-6 * generator.standard_normal(runs), now
    found = amplitudes(x, np.full(steps, 1e-6), Recursion(0.9))
    assert found[-1] == pytest.approx(float(np.sqrt(np.mean(now**2))), rel=0.05)


def test_what_has_left_stays_a_number() -> None:
    found = amplitudes(np.full(5000, 4.0), np.full(5000, 1e-17), Recursion(0.5))
    assert np.isfinite(found).all()
    assert first_above(found, 1e-3) is not None


def test_it_begins_anew_where_the_factor_is_zero() -> None:
    """At x = 1 a step of plain descent takes away all that was there, the start too."""
    at = Growth.started(0.3, Recursion()).after(1.0, 1e-17)
    assert at.amplitude == pytest.approx(1e-17)


def test_the_size_at_which_it_bends_the_path() -> None:
    """Of L = (1 + y)x²/2 − by + cy²/2 at the edge: x² = 2(b − c(2/η − 1)), descent's own orbit of period 2."""
    eta, b, c = 0.5, 0.31, 0.1
    y = 2 / eta - 1
    size = leaving_size(b - c * y, 1.0)
    x = size
    for _ in range(4000):
        x, y = x - eta * (1 + y) * x, y - eta * (x * x / 2 - b + c * y)
    assert size == pytest.approx(abs(x), rel=1e-10)
    assert math.isnan(leaving_size(-1.0, 1.0))


def test_first_above() -> None:
    assert first_above(np.array([5.0, 0.1, 1.0, 2.0]), 1.0, after=1) == 2
    assert first_above(np.array([0.1, 1.0]), np.array([np.nan, np.nan])) is None
