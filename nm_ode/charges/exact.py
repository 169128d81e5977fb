"""The exact law of SGD's charges, step by step (docs/theory.md §3.2).

SGD is θ_{k+1} = θ_k − η w_k with w = v_{k+1} (heavy ball) or w = (1+β) v_{k+1} − β v_k (Nesterov), where
v_{k+1} = β v_k + (1−τ)(g_k + λθ_k), undampened in the first step. On a quadratic charge Q = [θ, θ] the gradient drops
out of [θ, g], and what is left is a linear recursion for Q and c = [θ, v] driven by [w, w] and, with Nesterov, [w, v].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nm_ode.charges.driven import Driven
from nm_ode.charges.law import Law

Array = NDArray[np.float64]


def exact(run: Driven) -> Array:
    """Q_0 … Q_N by the discrete law, which holds to rounding; shape (N+1, C)."""
    beta, decay = run.momentum, run.weight_decay
    charges = [run.start]
    # c = [θ_k, v_k] of quadratic charges, V = ⟨v_k, 1⟩ of translations.
    c = np.zeros_like(run.start)
    for k, lr in enumerate(run.lr):
        charge = charges[-1]
        share = 1.0 if k == 0 or not beta else 1 - run.dampening
        residual = 0.0 if run.residual is None else run.residual[k]
        s = beta * c + share * (decay * charge + residual)  # [θ_k, v_{k+1}], or V_{k+1}
        along = (1 + beta) * s - beta * c if run.nesterov else s  # [θ_k, w_k], or ⟨w_k, 1⟩
        quadratic = charge - 2 * lr * along + lr**2 * run.driver[k]
        charges.append(np.where(run.translation, charge - lr * along, quadratic))
        c = np.where(run.translation, s, s - lr * run.cross_at(k))
    return np.stack(charges)


EXACT = Law("exact discrete law", exact, takes_residual=True)
