"""What the continuous laws share: how fast weight decay takes charges away, and what drives them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nm_ode.charges.driven import Driven

Array = NDArray[np.float64]


def decay_rates(run: Driven) -> Array:
    """κ in each step: λ of translations, 2λ of quadratic charges; shape (N, C)."""
    return run.weight_decay[:, None] * np.where(run.translation, 1.0, 2.0)


def forces(run: Driven) -> Array:
    """F of every step, shape (N, C): |θ̇|² = [w, w]/(1−τ)² times 2m = h(1+β), with h = η(1−τ); 0 for translations."""
    found = np.stack([run.moved(k) for k in range(len(run.lr))])
    # A step without a length has no force.
    share = (1 + run.momentum) / np.where(run.durations > 0, run.durations, np.inf)
    return np.where(run.translation, 0.0, share[:, None] * found)
