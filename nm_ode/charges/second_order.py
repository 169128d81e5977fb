"""The second-order law of SGD's charges, with momentum: m Q̈ + b Q̇ + κQ = F (docs/theory.md §3.3).

**Nesterov.** Eliminating c from the recursion of the exact law (`exact.py`) gives, with ΔQ_k = Q_{k+1} − Q_k,
    ΔQ_{k+1} − β ΔQ_k + 2ηλ[(1+β) Q_{k+1} − β Q_k] = η² ([w,w]_{k+1} − β [w,w]_k + 2β² [w,v]_k),
whose second-order limit in time t = ηk is
    m Q̈ + (1 − β + 2βηλ) Q̇ + 2λQ = η ((1−β)[w,w] + 2β² [w,v]),    m = η(1+β)/2,
and for a translation, with ΔV the same way, m Q̈ + (1 − β + βηλ) Q̇ + λQ = 0. Where w varies little ([w,v] ≈ [w,w])
the force is η(1 − β + 2β²)[w,w], smaller than heavy ball's η(1+β)[w,w].
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from nm_ode.charges.continuous import decay_rate, force, forces
from nm_ode.charges.driven import Driven
from nm_ode.charges.equation import ChargeEquation
from nm_ode.charges.law import Law
from nm_ode.charges.oscillation import translation_closed_form

Array = NDArray[np.float64]


def start_rate(run: Driven) -> Array:
    """Q̇(0) that makes up for how torch starts; shape (C,).

    The first update is undampened and, with Nesterov, (1+β) d_0, and any step acts half a step before an oscillator
    at rest would. At late times each of these is a displacement; this rate gives the same one: summing
    ΔQ_{k+1} − βΔQ_k = −ηκQ_0 from the first ΔQ_0 against the oscillator's response from Q̇(0).
    """
    tau, beta = (run.dampening, run.momentum) if run.momentum else (0.0, 0.0)
    ahead = 1 + 2 * beta if run.nesterov else (1 + tau) / (1 - tau)
    return -decay_rate(run) * run.start * ahead / (1 + beta)


def second_order(run: Driven, *, from_rest: bool = False) -> Array:
    """m Q̈ + b Q̇ + κQ = F, at t = 0 … ; shape (N+1, C).

    Q̇(0) is `start_rate`, or with `from_rest` 0, as in the paper; late predictions differ by half a step's decay.
    Q̇ goes on continuously where the learning rate changes, as the velocity does.
    """
    rate = np.zeros_like(run.start) if from_rest else start_rate(run)
    charges = np.empty((len(run.lr) + 1, run.start.size))
    for here, law in ((run.translation, _free), (~run.translation, _driven_by_steps)):
        if here.any():
            charges[:, here] = law(run, here, rate[here])
    return charges


def _free(run: Driven, here: NDArray[np.bool_], rate: Array) -> Array:
    """Translations: the closed form, over each stretch of a constant learning rate."""
    charges = [run.start[here][None]]
    changes = np.flatnonzero(np.diff(run.lr)) + 1
    for first, stop in pairwise([0, *changes.tolist(), len(run.lr)]):
        t = run.times[first + 1 : stop + 1] - run.times[first]
        oscillation = oscillator(run, first, translation=True)
        charge, rates = translation_closed_form(t, charges[-1][-1], rate, *oscillation)
        charges.append(charge)
        rate = rates[-1]
    return np.concatenate(charges)


def _driven_by_steps(run: Driven, here: NDArray[np.bool_], rate: Array) -> Array:
    """Quadratic charges: over a step m, b, κ and F are constant, so it is a matrix exponential, whose factors decay."""
    charges = [run.start[here]]
    for k, h in enumerate(run.durations):
        step = _propagator(*oscillator(run, k, translation=False), float(h))
        charge, rate = step @ np.stack([charges[-1], rate, force(run, k)[here]])
        charges.append(charge)
    return np.stack(charges)


def oscillator(run: Driven, k: int, *, translation: bool) -> tuple[float, float, float]:
    """m, b and κ of m Q̈ + b Q̇ + κQ = F during step k."""
    lr, beta, decay = float(run.lr[k]), run.momentum, run.weight_decay
    m = float(run.durations[k]) * (1 + beta) / 2
    order = 1.0 if translation else 2.0
    friction = 1 - beta + (order * beta * lr * decay if run.nesterov else 0.0)
    return m, friction, order * decay


def equation(run: Driven) -> ChargeEquation:
    """The same for an engine."""
    driving = forces(run)
    m, b = np.empty_like(driving), np.empty_like(driving)
    for k in range(len(driving)):
        for here in (True, False):
            m[k, run.translation == here], b[k, run.translation == here], _ = oscillator(
                run, k, translation=here
            )
    return ChargeEquation(
        order=2,
        m=m,
        b=b,
        force=driving,
        kappa=decay_rate(run),
        start=np.concatenate([run.start, start_rate(run)]),
        times=run.times,
    )


def _propagator(m: float, b: float, kappa: float, h: float) -> Array:
    """(Q, Q̇, F) at a step's start to (Q, Q̇) at its end; shape (2, 3)."""
    generator = np.array([[0, 1, 0], [-kappa / m, -b / m, 1 / m], [0, 0, 0]])
    return np.asarray(expm(generator * h)[:2])


SECOND_ORDER = Law(
    "second-order continuous law",
    second_order,
    equation,
    from_rest=lambda run: second_order(run, from_rest=True),
)
