"""What the continuous laws share: how fast weight decay takes charges away, and what drives them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nm_ode.charges.driven import Driven

Array = NDArray[np.float64]


def decay_rate(run: Driven) -> Array:
    """κ: λ of translations, 2λ of quadratic charges; shape (C,)."""
    return np.where(run.translation, 1.0, 2.0) * run.weight_decay


def force(run: Driven, k: int) -> Array:
    """F during step k; 0 for translations; shape (C,)."""
    lr, beta = float(run.lr[k]), run.momentum
    if run.nesterov:
        found = lr * ((1 - beta) * run.driver[k] + 2 * beta**2 * run.cross_at(k))
    else:  # |θ̇|² = [w, w]/(1−τ)², and 2m = h(1+β), with h = η(1−τ)
        found = lr**2 * (1 + beta) * run.driver[k] / run.durations[k]
    return np.where(run.translation, 0.0, found)


def forces(run: Driven) -> Array:
    """F of every step, shape (N, C)."""
    return np.stack([force(run, k) for k in range(len(run.lr))])
