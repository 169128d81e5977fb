"""A damped oscillator that nothing drives, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def translation_closed_form(
    t: Array, start: Array, rate: Array, m: float, b: float, kappa: float
) -> tuple[Array, Array]:
    """m Q̈ + b Q̇ + κQ = 0 with Q(0) = start, Q̇(0) = rate: over-, critically or under-damped.

    Returns:
        Q and Q̇, each of shape (times, C).
    """
    gamma, omega_squared = b / (2 * m), kappa / m
    difference = gamma**2 - omega_squared
    t = np.asarray(t, dtype=float)[:, None]
    decay, slope = np.exp(-gamma * t), rate + gamma * start
    if abs(difference) <= 1e-12 * gamma**2:
        return decay * (start + slope * t), decay * (slope - gamma * (start + slope * t))
    if difference < 0:
        omega = np.sqrt(-difference)
        cos, sin = np.cos(omega * t), np.sin(omega * t)
        shape, derivative = start * cos + slope / omega * sin, slope * cos - omega * start * sin
        return decay * shape, decay * (derivative - gamma * shape)
    root = np.sqrt(difference)
    # Both exponents are negative; the slow one without the cancellation of γ − root.
    slow, fast = omega_squared / (gamma + root), gamma + root
    slowly, quickly = (fast * start + rate) / (fast - slow), -(slow * start + rate) / (fast - slow)
    slowly, quickly = slowly * np.exp(-slow * t), quickly * np.exp(-fast * t)
    return slowly + quickly, -slow * slowly - fast * quickly
