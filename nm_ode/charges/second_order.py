"""The second-order law of SGD's charges, with momentum: m Q̈ + b Q̇ + κQ = F (docs/theory.md §3.3).

**Nesterov.** Eliminating c from the recursion of the exact law (`exact.py`) gives, with ΔQ_k = Q_{k+1} − Q_k,
    ΔQ_{k+1} − β ΔQ_k + 2ηλ[(1+β) Q_{k+1} − β Q_k] = η² ([w,w]_{k+1} − β [w,w]_k + 2β² [w,v]_k).
Of the right-hand side the first two terms are what ΔQ_k = η²[w,w]_k alone would give: [w, w] acts at once, and only
[w, v] through the velocity. So Q = A + R, where A adds up η²[w, w], and, in time t = ηk,
    m R̈ + (1 − β + 2βηλ) Ṙ + 2λR = 2β²η[w,v] − 2βη²λ[w,w] − 2λA,    m = η(1+β)/2.
η[w, v]_k stands half a step before the middle of the left-hand side, so a step is given the mean of its own and the one
before. For a translation m Q̈ + (1 − β + βηλ) Q̇ + λQ = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from nm_ode.charges.continuous import decay_rates, forces
from nm_ode.charges.driven import Driven
from nm_ode.charges.equation import ChargeEquation
from nm_ode.charges.law import Law
from nm_ode.charges.oscillation import translation_closed_form
from nm_ode.charges.recursion import Recursion
from nm_ode.charges.settings import Settings

Array = NDArray[np.float64]


def start_rate(run: Driven) -> Array:
    """Q̇(0) that makes up for how torch starts; shape (C,).

    The first update is undampened and, with Nesterov, (1+β) d_0, and any step acts half a step before an oscillator
    at rest would. At late times each of these is a displacement; this rate gives the same one: summing
    ΔQ_{k+1} − βΔQ_k = −ηκQ_0 from the first ΔQ_0 against the oscillator's response from Q̇(0).
    """
    first = run.at(0)
    tau, beta = (first.dampening, first.momentum) if first.momentum else (0.0, 0.0)
    ahead = 1 + 2 * beta if run.nesterov else (1 + tau) / (1 - tau)
    return np.asarray(-decay_rates(run)[0] * run.start * ahead / (1 + beta))


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


def at_once(run: Driven) -> Array:
    """A, what the steps add to each charge without the velocity's delay; shape (N+1, C). 0 but for Nesterov."""
    added = np.zeros((len(run.lr) + 1, run.start.size))
    if run.nesterov:
        moved = np.stack([run.moved(k) for k in range(len(run.lr))])
        np.cumsum(np.where(run.translation, 0.0, moved), axis=0, out=added[1:])
    return added


def delayed_forces(run: Driven) -> Array:
    """What acts through the velocity, on the charge less `at_once`; shape (N, C)."""
    if not run.nesterov:
        return forces(run)
    beta, decay, added = run.momentum[:, None], run.weight_decay[:, None], at_once(run)
    cross = np.stack([run.crossed(k) for k in range(len(run.lr))])
    cross[1:] = (cross[1:] + cross[:-1]) / 2
    cross[0] /= 2  # the velocity is zero before the first step
    found = 2 * beta**2 * cross - 2 * beta * decay * np.diff(added, axis=0)
    return np.where(run.translation, 0.0, found - decay_rates(run) * (added[1:] + added[:-1]) / 2)


def _free(run: Driven, here: NDArray[np.bool_], rate: Array) -> Array:
    """Translations: the closed form, over each stretch of steps that are alike."""
    charges = [run.start[here][None]]
    alike = np.stack([run.lr, run.momentum, run.weight_decay], axis=1)
    changes = np.flatnonzero(np.diff(alike, axis=0).any(axis=1)) + 1
    for first, stop in pairwise([0, *changes.tolist(), len(run.lr)]):
        if not run.lr[first]:
            charges.append(np.repeat(charges[-1][-1:], stop - first, axis=0))
            continue
        t = run.times[first + 1 : stop + 1] - run.times[first]
        oscillation = oscillator(run, first, translation=True)
        charge, rates = translation_closed_form(t, charges[-1][-1], rate, *oscillation)
        charges.append(charge)
        rate = rates[-1]
    return np.concatenate(charges)


def _driven_by_steps(run: Driven, here: NDArray[np.bool_], rate: Array) -> Array:
    """Quadratic charges: over a step m, b, κ and F are constant, so it is a matrix exponential, whose factors decay."""
    delayed, acting = [run.start[here]], delayed_forces(run)[:, here]
    for k, h in enumerate(run.durations):
        step = _propagator(*oscillator(run, k, translation=False), float(h)) if h else np.eye(2, 3)
        charge, rate = step @ np.stack([delayed[-1], rate, acting[k]])
        delayed.append(charge)
    return np.stack(delayed) + at_once(run)[:, here]


def oscillator(run: Driven, k: int, *, translation: bool) -> tuple[float, float, float]:
    """m, b and κ of m Q̈ + b Q̇ + κQ = F during step k."""
    return _oscillator(run.at(k), float(run.durations[k]), 1 if translation else 2)


def _oscillator(of: Settings, h: float, degree: int) -> tuple[float, float, float]:
    """The same of a step that takes flow time h, for charges of a degree."""
    beta, decay = of.momentum, of.weight_decay
    friction = 1 - beta + (degree * beta * of.lr * decay if of.nesterov else 0.0)
    return h * (1 + beta) / 2, friction, degree * decay


def equation(run: Driven) -> ChargeEquation:
    """The same for an engine."""
    acting = delayed_forces(run)
    m, b = np.empty_like(acting), np.empty_like(acting)
    for k in range(len(acting)):
        for here in (True, False):
            m[k, run.translation == here], b[k, run.translation == here], _ = oscillator(
                run, k, translation=here
            )
    return ChargeEquation(
        order=2,
        m=m,
        b=b,
        force=acting,
        kappa=decay_rates(run)[0],
        start=np.concatenate([run.start, start_rate(run)]),
        times=run.times,
        added=at_once(run),
    )


def _propagator(m: float, b: float, kappa: float, h: float) -> Array:
    """(Q, Q̇, F) at a step's start to (Q, Q̇) at its end; shape (2, 3)."""
    generator = np.array([[0, 1, 0], [-kappa / m, -b / m, 1 / m], [0, 0, 0]])
    return np.asarray(expm(generator * h)[:2])


def _state(hyperparameters: Mapping[str, Any]) -> tuple[str, ...]:
    """R and Ṙ; with Nesterov A too, and the last step's η[w, v]. Without, R is Q itself."""
    return ("R", "dR/dt", "A", "last η[w, v]") if hyperparameters["nesterov"] else ("Q", "dQ/dt")


def _step(of: Settings, degree: int) -> tuple[Array, Array]:
    """z after a step from z before it, and from what drives it."""
    h, beta, decay = of.time, of.momentum, of.weight_decay
    m, friction, kappa = _oscillator(of, h, degree)
    moves = _propagator(m, friction, kappa, h) if h else np.eye(2, 3)
    held = moves[:, 2]  # what a force of one does over the step
    if not of.nesterov:
        driven = np.zeros((2, 3))
        driven[:, 0] = held * (1 + beta) / h if h else 0.0
        return moves[:, :2], driven
    keeps, driven = np.zeros((4, 4)), np.zeros((4, 3))
    keeps[:2, :2], keeps[:2, 2], keeps[:2, 3] = moves[:, :2], -kappa * held, beta**2 * held
    keeps[2, 2] = 1.0
    driven[:2, 0], driven[:2, 1] = -(2 * beta * decay + kappa / 2) * held, beta**2 * held
    driven[2, 0] = driven[3, 1] = 1.0
    return keeps, driven


def _start(run: Driven, *, from_rest: bool = False) -> Array:
    z = np.zeros((len(_state(run.hyperparameters)), run.start.size))
    z[0] = run.start
    if not from_rest:
        z[1] = start_rate(run)
    return z


def _charge(z: Array) -> Array:
    """Q = R + A."""
    return np.asarray(z[0] + z[2] if len(z) > 2 else z[0])


SECOND_ORDER = Law(
    "second-order continuous law",
    second_order,
    equation,
    from_rest=lambda run: second_order(run, from_rest=True),
    recursion=Recursion(_state, _step, _start, lambda run: _start(run, from_rest=True), _charge),
)
