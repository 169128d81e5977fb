"""Laws of motion of the charges under SGD: exact step by step, and continuous (THEORY.md §3).

SGD is θ_{k+1} = θ_k − η w_k with w = v_{k+1} (heavy ball) or w = (1+β) v_{k+1} − β v_k (Nesterov), where
v_{k+1} = β v_k + (1−τ)(g_k + λθ_k), undampened in the first step. On a quadratic charge Q = [θ, θ] the gradient drops
out of [θ, g], and what is left is a linear recursion for Q and c = [θ, v] driven by [w, w] and, with Nesterov, [w, v].

**Nesterov's continuous law.** Eliminating c from the recursion gives, with ΔQ_k = Q_{k+1} − Q_k,
    ΔQ_{k+1} − β ΔQ_k + 2ηλ[(1+β) Q_{k+1} − β Q_k] = η² ([w,w]_{k+1} − β [w,w]_k + 2β² [w,v]_k),
whose second-order limit in time t = ηk is
    m Q̈ + (1 − β + 2βηλ) Q̇ + 2λQ = η ((1−β)[w,w] + 2β² [w,v]),    m = η(1+β)/2,
and for a translation, with ΔV the same way, m Q̈ + (1 − β + βηλ) Q̇ + λQ = 0. Where w varies little ([w,v] ≈ [w,w])
the force is η(1 − β + 2β²)[w,w], smaller than heavy ball's η(1+β)[w,w].
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.linalg import expm

from nm_ode.errors import NmOdeError
from nm_ode.results.schema import annotate

Array = NDArray[np.float64]


class LawError(NmOdeError, ValueError):
    """This law does not describe this run."""


@dataclass(frozen=True)
class Driven:
    """What a law needs of a run: hyper-parameters, the first charges, and the drivers.

    Attributes:
        lr: shape (N,), η at each step.
        start: shape (C,), Q_0.
        translation: shape (C,), bool.
        driver: shape (N, C), [w, w]; not read for translations.
        cross: shape (N, C), [w, v_{k+1}]; needed with Nesterov only.
        residual: shape (N, C), [g, θ] where it is not zero (a normalisation's ε); None for zero.
    """

    lr: Array
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    start: Array
    translation: NDArray[np.bool_]
    driver: Array
    cross: Array | None = None
    residual: Array | None = None

    @property
    def time_factor(self) -> float:
        """Flow time of a step over its learning rate: 1 − τ with momentum, else 1."""
        return 1 - self.dampening if self.momentum else 1.0


def driven(run: xr.Dataset, *, with_residual: bool = False) -> Driven:
    """A run of `train(..., symmetries=...)` as the laws want it.

    Raises:
        LawError: the run recorded no charges.
    """
    if "charge" not in run.variables:
        raise LawError("the run has no charges: train with symmetries=symmetries_of(problem)")
    attrs = run.attrs
    cross = run["charge_cross_driver"].values if "charge_cross_driver" in run else None
    return Driven(
        lr=run["lr"].values,
        momentum=attrs["momentum"],
        dampening=attrs["dampening"],
        weight_decay=attrs["weight_decay"],
        nesterov=bool(attrs["nesterov"]),
        start=run["charge"].values[0],
        translation=run["kind"].values == "translation",
        driver=run["charge_driver"].values,
        cross=cross,
        residual=run["constraint_residual"].values if with_residual else None,
    )


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
        c = np.where(run.translation, s, s - lr * _cross(run, k))
    return np.stack(charges)


def _cross(run: Driven, k: int) -> Array:
    """[w_k, v_{k+1}]."""
    if not run.nesterov:
        return np.asarray(run.driver[k])
    if run.cross is None:
        raise LawError("Nesterov's law needs the driver [w, v] (charge_cross_driver)")
    return np.asarray(run.cross[k])


def first_order(run: Driven) -> Array:
    """Q̇ = −2λQ + η|θ̇|² (translation: Q̇ = −λQ), at t = 0 … ; shape (N+1, C).

    Integrated exactly over each step, on which the driver is constant.

    Raises:
        LawError: a run with momentum, which this law misses by as much as the charge moves.
    """
    require_first_order(run)
    rate = decay_rate(run)
    charges = [run.start]
    for k, lr in enumerate(run.lr):
        decay = np.exp(-rate * lr)
        # (1 − e^{−rt})/r, and t where r = 0.
        held = np.where(rate > 0, -np.expm1(-rate * lr) / np.where(rate > 0, rate, 1.0), lr)
        charges.append(decay * charges[-1] + held * force(run, k))
    return np.stack(charges)


def require_first_order(run: Driven) -> None:
    """Raises LawError for a run with momentum."""
    if run.momentum:
        raise LawError(
            f"the first-order law is for momentum = 0; this run has {run.momentum}: use the second-order law"
        )


def decay_rate(run: Driven) -> Array:
    """κ: λ of translations, 2λ of quadratic charges; shape (C,)."""
    return np.where(run.translation, 1.0, 2.0) * run.weight_decay


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
        t = np.arange(1, stop - first + 1, dtype=np.float64) * (float(run.lr[first]) * run.time_factor)
        oscillation = oscillator(run, first, translation=True)
        charge, rates = translation_closed_form(t, charges[-1][-1], rate, *oscillation)
        charges.append(charge)
        rate = rates[-1]
    return np.concatenate(charges)


def _driven_by_steps(run: Driven, here: NDArray[np.bool_], rate: Array) -> Array:
    """Quadratic charges: over a step m, b, κ and F are constant, so it is a matrix exponential, whose factors decay."""
    charges = [run.start[here]]
    for k, lr in enumerate(run.lr):
        step = _propagator(*oscillator(run, k, translation=False), float(lr) * run.time_factor)
        charge, rate = step @ np.stack([charges[-1], rate, force(run, k)[here]])
        charges.append(charge)
    return np.stack(charges)


def oscillator(run: Driven, k: int, *, translation: bool) -> tuple[float, float, float]:
    """m, b and κ of m Q̈ + b Q̇ + κQ = F during step k."""
    lr, beta, decay = float(run.lr[k]), run.momentum, run.weight_decay
    m = lr * run.time_factor * (1 + beta) / 2
    order = 1.0 if translation else 2.0
    friction = 1 - beta + (order * beta * lr * decay if run.nesterov else 0.0)
    return m, friction, order * decay


def force(run: Driven, k: int) -> Array:
    """F during step k; 0 for translations."""
    lr, beta = float(run.lr[k]), run.momentum
    if run.nesterov:
        found = lr * ((1 - beta) * run.driver[k] + 2 * beta**2 * _cross(run, k))
    else:  # |θ̇|² = [w, w]/(1−τ)², and 2m = η(1−τ)(1+β)
        found = lr * (1 + beta) * run.driver[k] / run.time_factor
    return np.where(run.translation, 0.0, found)


def _propagator(m: float, b: float, kappa: float, h: float) -> Array:
    """(Q, Q̇, F) at a step's start to (Q, Q̇) at its end; shape (2, 3)."""
    generator = np.array([[0, 1, 0], [-kappa / m, -b / m, 1 / m], [0, 0, 0]])
    return np.asarray(expm(generator * h)[:2])


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


LAWS = {"exact": exact, "first_order": first_order, "second_order": second_order}
TITLES = {
    "exact": "exact discrete law",
    "first_order": "first-order continuous law",
    "second_order": "second-order continuous law",
}


def require_law(law: str) -> None:
    """Raises LawError for a law that there is not."""
    if law not in LAWS:
        raise LawError(f"law must be one of {', '.join(LAWS)}; {law!r} was given")


def predict_charges(
    run: xr.Dataset, law: str, *, with_residual: bool = False, from_rest: bool = False
) -> xr.Dataset:
    """Charges by a law from the recorded drivers, at the run's steps.

    Args:
        run: from `train(..., symmetries=...)`.
        law: "exact", "second_order", or "first_order" (without momentum).
        with_residual: let the recorded ⟨g, ξ⟩ act, which a normalisation's ε makes other than zero ("exact" only).
        from_rest: Q̇(0) = 0, as in the paper, in place of the rate that makes up for torch's first step
            ("second_order" only).

    Returns:
        `charge` (step, charge_index), with the run's coordinates; attributes `law` and `title`.

    Raises:
        LawError: no charges, an unknown law, or the first-order law with momentum.
    """
    require_law(law)
    if with_residual and law != "exact":
        raise LawError("with_residual goes with law 'exact'")
    if from_rest and law != "second_order":
        raise LawError("from_rest goes with law 'second_order'")
    what = driven(run, with_residual=with_residual)
    charges = second_order(what, from_rest=True) if from_rest else LAWS[law](what)
    title = (
        TITLES[law] + (", with what ε adds" if with_residual else "") + (", from rest" if from_rest else "")
    )
    return as_prediction(run, charges, {"law": law, "title": title})


def as_prediction(run: xr.Dataset, charges: Array, attrs: dict[str, str | int | float]) -> xr.Dataset:
    """Charges of shape (steps or more, C) as a dataset beside `run["charge"]`."""
    predicted = run["charge"].copy(data=charges[: run.sizes["step"]])
    return annotate(predicted.to_dataset(name="charge").assign_attrs(attrs))
