"""The first-order law of plain descent's charges: Q̇ = −2λQ + η|θ̇|² (docs/theory.md §3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nm_ode.charges.continuous import decay_rates, forces
from nm_ode.charges.driven import Driven
from nm_ode.charges.equation import ChargeEquation
from nm_ode.charges.errors import LawError
from nm_ode.charges.law import Law
from nm_ode.charges.recursion import Recursion
from nm_ode.charges.settings import Settings

Array = NDArray[np.float64]


def first_order(run: Driven) -> Array:
    """Q̇ = −2λQ + η|θ̇|² (translation: Q̇ = −λQ), at t = 0 … ; shape (N+1, C).

    Integrated exactly over each step, on which the driver is constant.

    Raises:
        LawError: a run with momentum, which this law misses by as much as the charge moves.
    """
    require_no_momentum(run.hyperparameters)
    charges, driving = [run.start], forces(run)
    for h, force, rate in zip(run.durations, driving, decay_rates(run), strict=True):
        decay = np.exp(-rate * h)
        # (1 − e^{−rt})/r, and t where r = 0.
        held = np.where(rate > 0, -np.expm1(-rate * h) / np.where(rate > 0, rate, 1.0), h)
        charges.append(decay * charges[-1] + held * force)
    return np.stack(charges)


def equation(run: Driven) -> ChargeEquation:
    """The same for an engine."""
    require_no_momentum(run.hyperparameters)
    driving = forces(run)
    return ChargeEquation(
        order=1,
        m=np.ones_like(driving),
        b=np.zeros_like(driving),
        force=driving,
        kappa=decay_rates(run)[0],
        start=run.start.copy(),
        times=run.times,
        added=np.zeros((len(driving) + 1, run.start.size)),
    )


def require_no_momentum(hyperparameters: Mapping[str, Any]) -> None:
    """Raises LawError for a run with momentum."""
    momentum = hyperparameters["momentum"]
    if momentum:
        raise LawError(
            f"the first-order law is for momentum = 0; this run has {momentum}: use the second-order law"
        )


def _step(of: Settings, degree: int) -> tuple[Array, Array]:
    """Q after a step from Q before it, and from what drives it."""
    rate, h = degree * of.weight_decay, of.time
    # (1 − e^{−rh})/(rh), the share of what is driven that has not decayed yet.
    held = -float(np.expm1(-rate * h)) / (rate * h) if rate * h > 0 else 1.0
    return np.array([[np.exp(-rate * h)]]), np.array([[held, 0.0, 0.0]])


FIRST_ORDER = Law(
    "first-order continuous law",
    first_order,
    equation,
    require_more=require_no_momentum,
    recursion=Recursion(lambda hyperparameters: ("Q",), _step, lambda run: run.start[None]),
)
