"""The regimes of the second-order law, m Q̈ + b Q̇ + κQ = F: over-, critically or underdamped (docs/theory.md §3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import xarray as xr

from nm_ode.charges.driven import Driven, driven
from nm_ode.charges.errors import LawError
from nm_ode.charges.laws import require_described
from nm_ode.charges.second_order import oscillator
from nm_ode.charges.shares import shares
from nm_ode.errors import ArgumentError

Damping = Literal["overdamped", "critically damped", "underdamped", "free"]

_CRITICAL = 1e-12  # of (γ² − ω²)/γ², as the law's closed form has it


@dataclass(frozen=True)
class Regime:
    """How a symmetry's charges answer over a stretch of steps in which learning rate, momentum and decay are the same.

    Attributes:
        steps: the first of the stretch, and the first after it.
        times: flow times at these two.
        lr, momentum, weight_decay: η, β, λ in each of these steps.
        m, b, kappa: of the law.
        degree: 1 of translations, 2 of quadratic charges.
        nesterov: does b have a part of the weight decay?
    """

    steps: tuple[int, int]
    times: tuple[float, float]
    lr: float
    momentum: float
    weight_decay: float
    m: float
    b: float
    kappa: float
    degree: int
    nesterov: bool = False

    @property
    def gamma(self) -> float:
        """b/(2m), per flow time."""
        return self.b / (2 * self.m)

    @property
    def omega(self) -> float:
        """√(κ/m), the frequency without friction, per flow time."""
        return math.sqrt(self.kappa / self.m)

    @property
    def damping_ratio(self) -> float:
        """ζ = γ/ω: above 1 overdamped, below it underdamped; infinite without weight decay."""
        return self.gamma / self.omega if self.kappa > 0 else math.inf

    @property
    def damping(self) -> Damping:
        """The regime's name; "free" without weight decay, for then nothing pulls the charge back."""
        if self.kappa == 0:
            return "free"
        difference = self.gamma**2 - self.kappa / self.m
        if abs(difference) <= _CRITICAL * self.gamma**2:
            return "critically damped"
        return "overdamped" if difference > 0 else "underdamped"

    @property
    def rates(self) -> tuple[float, float]:
        """The slow and the fast rate of decay, per flow time; both γ where the charge oscillates."""
        if self.damping in ("underdamped", "critically damped"):
            return self.gamma, self.gamma
        fast = self.gamma + math.sqrt(max(self.gamma**2 - self.kappa / self.m, 0.0))
        return self.kappa / self.m / fast, fast  # without the cancellation of γ − √(γ² − ω²)

    @property
    def period(self) -> float:
        """Of the oscillation, in flow time; infinite where there is none."""
        if self.damping != "underdamped":
            return math.inf
        return 2 * math.pi / math.sqrt(self.kappa / self.m - self.gamma**2)

    @property
    def critical_weight_decay(self) -> float:
        """The λ above which these steps' charges oscillate; infinite where none does (Nesterov's friction rises too).

        b² = 4mκ with κ = dλ and b = (1−β) + qλ, where q = dβη with Nesterov, else 0.
        """
        friction, rise = 1 - self.momentum, self.degree * self.momentum * self.lr if self.nesterov else 0.0
        half = 2 * self.m * self.degree - friction * rise
        root = half**2 - (friction * rise) ** 2
        if half <= 0 or root < 0:
            return math.inf
        return friction**2 / (half + math.sqrt(root))


def regimes(run: xr.Dataset, symmetry: str) -> list[Regime]:
    """The regimes that a symmetry's charges go through, in the order of the steps.

    They are of the second-order law, with and without momentum; steps whose learning rate is 0 move nothing, and are
    left out.

    Args:
        run: from `train` or a Recorder, with charges recorded.
        symmetry: its name.

    Returns:
        A `Regime` for each stretch: `steps`, `damping`, `period` …

    Raises:
        ArgumentError: the run has no charges of it.
        LawError: no charges were recorded, or the law does not describe these.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.charges import regimes
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> sgd, found = nm_ode.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3), nm_ode.symmetries_of(problem)
        >>> run = nm_ode.train(problem, sgd, steps=20, observe=[nm_ode.Charges(found)])
        >>> [(one.steps, one.damping) for one in regimes(run, found[0].name)]
        [((0, 20), 'overdamped')]
    """
    parts, beyond = shares(run)
    if symmetry in beyond:
        raise LawError(f"{symmetry}: {beyond[symmetry]}")
    for share in parts:
        if symmetry in share.symmetries:
            what = _of_every_step(driven(share.run, at_records=True), share.run)
            require_described("second_order", what.optimizer, what.hyperparameters, at_rest=what.at_rest)
            names = share.run["charge_symmetry"].values.tolist()
            return _of(what, translation=bool(what.translation[names.index(symmetry)]))
    there = ", ".join(dict.fromkeys(run["charge_symmetry"].values.tolist()))
    raise ArgumentError(f"the run has no charges of {symmetry!r}; it has those of {there}")


def _of_every_step(what: Driven, run: xr.Dataset) -> Driven:
    """With settings of every step, where only those at the records are known.

    Raises:
        LawError: they differ, and nobody knows when they changed.
    """
    if what.settings is None or len(what.settings) == len(what.lr):
        return what
    known = np.asarray(run["sgd_settings"].values, dtype=np.float64)
    if np.ptp(known, axis=0).any():
        raise LawError(
            "within the run momentum or weight decay changed between two records of the charges, at a step that nobody "
            "knows: record with Charges(symmetries, every=1)"
        )
    return replace(what, settings=np.broadcast_to(known[:1], (len(what.lr), known.shape[1])))


def _of(what: Driven, *, translation: bool) -> list[Regime]:
    steps = len(what.lr)
    momentum, decay = (np.broadcast_to(values, steps) for values in (what.momentum, what.weight_decay))
    alike = np.stack([what.lr, momentum, decay], axis=1)
    changes = np.flatnonzero(np.diff(alike, axis=0).any(axis=1)) + 1
    found = []
    for first, stop in pairwise([0, *changes.tolist(), steps]):
        if what.lr[first]:
            m, b, kappa = oscillator(what, first, translation=translation)
            found.append(
                Regime(
                    (first, stop),
                    (float(what.times[first]), float(what.times[stop])),
                    float(what.lr[first]),
                    float(momentum[first]),
                    float(decay[first]),
                    m,
                    b,
                    kappa,
                    1 if translation else 2,
                    what.nesterov,
                )
            )
    return found
