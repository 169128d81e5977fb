"""What the continuous laws share: how fast weight decay takes charges away, and what drives them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nm_ode.charges.driven import Driven

Array = NDArray[np.float64]


def decay_rate(run: Driven) -> Array:
    """κ: λ of translations, 2λ of quadratic charges; shape (C,)."""
    return np.where(run.translation, 1.0, 2.0) * run.weight_decay


def forces(run: Driven) -> Array:
    """F of every step, shape (N, C): |θ̇|² = [w, w]/(1−τ)² times 2m = h(1+β), with h = η(1−τ); 0 for translations."""
    found = (run.lr**2 * (1 + run.momentum) / run.durations)[:, None] * run.driver
    return np.where(run.translation, 0.0, found)
