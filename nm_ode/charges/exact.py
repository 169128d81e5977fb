"""The exact law of SGD's charges, step by step (docs/theory.md §3.2).

SGD is θ_{k+1} = θ_k − η w_k with w = v_{k+1} (heavy ball) or w = (1+β) v_{k+1} − β v_k (Nesterov), where
v_{k+1} = β v_k + (1−τ)(g_k + λθ_k), undampened in the first step. On a quadratic charge Q = [θ, θ] the gradient drops
out of [θ, g], and what is left is a linear recursion for Q and c = [θ, v] driven by [w, w] and, with Nesterov, [w, v].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nm_ode.charges.driven import Driven
from nm_ode.charges.law import Law
from nm_ode.charges.recursion import Recursion
from nm_ode.charges.settings import Settings

Array = NDArray[np.float64]


def exact(run: Driven) -> Array:
    """Q_0 … Q_N by the discrete law, which holds to rounding; shape (N+1, C)."""
    charges = [run.start]
    # c = [θ_k, v_k] of quadratic charges, V = ⟨v_k, 1⟩ of translations.
    c = np.zeros_like(run.start)
    for k, lr in enumerate(run.lr):
        charge = charges[-1]
        step, beta = run.at(k), run.at(k).momentum
        residual = 0.0 if run.residual is None else run.residual[k]
        s = beta * c + step.share * (step.weight_decay * charge + residual)  # [θ_k, v_{k+1}], or V_{k+1}
        along = (1 + beta) * s - beta * c if run.nesterov else s  # [θ_k, w_k], or ⟨w_k, 1⟩
        quadratic = charge - 2 * lr * along + run.moved(k)
        charges.append(np.where(run.translation, charge - lr * along, quadratic))
        c = np.where(run.translation, s, s - run.crossed(k))
    return np.stack(charges)


def _state(hyperparameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Without momentum no velocity is remembered."""
    return ("Q", "[θ, v]") if hyperparameters["momentum"] else ("Q",)


def _step(of: Settings, degree: int) -> tuple[Array, Array]:
    """(Q, c) after a step from (Q, c) before it, and from what drives it."""
    beta, taken, moved = of.momentum, of.share, degree * of.lr
    decay = taken * of.weight_decay
    # [θ, w] is so much of s, less so much of c.
    ahead, back = (1 + beta, beta) if of.nesterov else (1.0, 0.0)
    keeps = np.array([[1 - moved * ahead * decay, -moved * (ahead * beta - back)], [decay, beta]])
    # η[w, v_{k+1}] is η[w, w] without Nesterov; a step without a length moves nothing.
    own = 0.0 if of.nesterov or not of.lr else -1 / of.lr
    driven = np.array([[1.0, 0.0, -moved * ahead * taken], [own, -1.0 if of.nesterov else 0.0, taken]])
    count = 2 if beta else 1
    return keeps[:count, :count], driven[:count]


def _start(run: Driven) -> Array:
    z = np.zeros((len(_state(run.hyperparameters)), run.start.size))
    z[0] = run.start
    return z


EXACT = Law("exact discrete law", exact, takes_residual=True, recursion=Recursion(_state, _step, _start))
