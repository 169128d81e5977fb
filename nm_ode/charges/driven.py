"""What a law needs of a run: its steps, its optimiser, the first charges, and what drives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.charges.errors import LawError
from nm_ode.charges.orthogonal import require_orthogonal
from nm_ode.charges.settings import SETTINGS, Settings
from nm_ode.results import ResultError, RunInfo, run_info
from nm_ode.symmetries import KINDS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Driven:
    """Charges Q of a run, and what drives them.

    Attributes:
        lr: shape (N,), η at each step.
        times: shape (N+1,), flow time at each step's start and at the end.
        optimizer: name of its class.
        hyperparameters: by name, as the class takes them.
        start: shape (C,), Q_0.
        translation: shape (C,), bool: charges that are linear in theta.
        driver: shape (N, C), [w, w] of the update −ηw; not read for translations.
        cross: shape (N, C), [w, v_{k+1}]; needed with Nesterov only.
        residual: shape (N, C), [g, θ] where it is not zero (a normalisation's ε); None for zero.
        at_rest: did the optimiser start with an empty state, not with that of an earlier run?
        settings: shape (N, 4), what SETTINGS names at each step, where a loop changed it; None where it is what
            `hyperparameters` says. Of a run with charges at some steps alone that of the first step, shape (1, 4).
    """

    lr: Array
    times: Array
    optimizer: str
    hyperparameters: Mapping[str, Any]
    start: Array
    translation: NDArray[np.bool_]
    driver: Array
    cross: Array | None = None
    residual: Array | None = None
    at_rest: bool = True
    settings: Array | None = None

    @cached_property
    def durations(self) -> Array:
        """Flow time of each step, shape (N,)."""
        return np.diff(self.times)

    def at(self, k: int) -> Settings:
        """SGD's own numbers in step k."""
        changed = {} if self.settings is None else dict(zip(SETTINGS, self.settings[k].tolist(), strict=True))
        return Settings.of({**self.hyperparameters, **changed}, float(self.lr[k]), first=k == 0)

    @property
    def momentum(self) -> Array:
        """SGD's β in each step, shape (N,)."""
        return self._of_steps("momentum")

    @property
    def weight_decay(self) -> Array:
        """λ in each step, shape (N,)."""
        return self._of_steps("weight_decay")

    @property
    def nesterov(self) -> bool:
        """SGD's look-ahead."""
        return bool(self.hyperparameters["nesterov"])

    def moved(self, k: int) -> Array:
        """η²[w, w] of step k, shape (C,); 0 where the learning rate is 0, whatever the update would have been."""
        lr = self.lr[k]
        return lr**2 * self.driver[k] if lr else np.zeros(self.start.size)

    def crossed(self, k: int) -> Array:
        """η[w_k, v_{k+1}], shape (C,): η[w, w] without Nesterov; 0 where the learning rate is 0."""
        if self.nesterov and self.cross is None:
            raise LawError(
                "the law needs [w, v] of a run with Nesterov's momentum, and this one has no charge_cross_driver"
            )
        driver = self.cross if self.nesterov and self.cross is not None else self.driver
        return self.lr[k] * driver[k] if self.lr[k] else np.zeros(self.start.size)

    def _of_steps(self, name: str) -> Array:
        if self.settings is None:
            return np.full(len(self.lr), float(self.hyperparameters[name]))
        return self.settings[:, SETTINGS.index(name)]


def driven(run: xr.Dataset, *, with_residual: bool = False, at_records: bool = False) -> Driven:
    """A run whose charges were recorded as the laws want it.

    Args:
        run: from `train`.
        with_residual: with the recorded ⟨g, ξ⟩.
        at_records: may the charges be those of some steps alone? Then nothing drives them here.

    Raises:
        LawError: no run of `train`, no charges or not those of every step, or no step.
    """
    info = info_of_charges(run)
    some = not has_every_step(run)
    if some and not at_records:
        raise LawError(
            "the run recorded its charges at some steps alone, and an engine needs what drives them at each: "
            "record with Charges(symmetries, every=1), or take predict_charges"
        )
    require_within_laws(run, info)
    if info.foreign_gradient and not with_residual:
        raise LawError(
            f"{info.foreign_gradient}; so a symmetry of the loss says nothing of its charges, and no law describes "
            "them: take law 'exact' with_residual=True, which has the recorded ⟨g, ξ⟩"
        )
    if not with_residual:
        require_orthogonal(run, info)
    if not info.grid.steps or not run["charge"].shape[0]:
        raise LawError(
            "the run has no step: its loss was not finite from the start, and there is nothing to predict"
        )
    return Driven(
        lr=info.grid.lr,
        times=info.grid.times,
        optimizer=info.optimizer,
        hyperparameters=info.hyperparameters,
        start=run["charge"].values[0],
        translation=np.array(
            [KINDS[kind].form.degree == 1 for kind in run["kind"].values.tolist()], dtype=bool
        ),
        driver=np.empty((0, run["charge"].shape[1])) if some else run["charge_driver"].values,
        cross=run["charge_cross_driver"].values if "charge_cross_driver" in run else None,
        residual=run["constraint_residual"].values if with_residual and not some else None,
        at_rest=not (info.warm_start and info.stateful),
        settings=_settings(run, some) if "sgd_settings" in run else None,
    )


def info_of_charges(run: xr.Dataset) -> RunInfo:
    """What a run that recorded charges says of itself.

    Raises:
        LawError: no run of `train`, no charges, or none that any law describes.
    """
    try:
        info = run_info(run)
    except ResultError as error:
        raise LawError(f"charges are predicted from a run of `train`; {error}") from error
    if "charge" not in run.variables:
        raise LawError("the run recorded no charges: train with observe=[Charges(symmetries)]")
    if info.beyond_laws.everything:
        raise beyond_all_laws(info.beyond_laws.everything)
    return info


def beyond_all_laws(why: str) -> LawError:
    """That no law describes charges."""
    return LawError(f"{why}: the charges are recorded, but no law predicts them")


def require_within_laws(run: xr.Dataset, info: RunInfo) -> None:
    """Raises LawError unless the run's laws are those of all of its charges."""
    beyond = info.beyond_laws
    for name in dict.fromkeys(run["charge_symmetry"].values.tolist()):
        if beyond.of(name):
            raise LawError(f"{name}: {beyond.of(name)}: its charges are recorded, but no law predicts them")
    if "class_of_charge" in run and "charge_class" in run.dims:
        raise LawError(
            "groups of parameters of the run's optimiser move its charges, each by its own steps: predict_charges and "
            "solve_charges have a law for each"
        )


def _settings(run: xr.Dataset, some: bool) -> Array | None:
    """As in `Driven`.

    Raises:
        LawError: changed in a way that no law describes.
    """
    found = np.asarray(run["sgd_settings"].values, dtype=np.float64)
    if some:
        return found[:1]
    momentum, dampening, _, nesterov = found.T
    if len(set((momentum > 0).tolist())) > 1 or np.ptp(dampening) or np.ptp(nesterov):
        raise LawError(CHANGED)
    return found


CHANGED = (
    "within the run momentum was switched on or off, or dampening or Nesterov's look-ahead was changed: the velocity "
    "begins anew, and no law of the charges describes it"
)


def has_every_step(run: xr.Dataset) -> bool:
    """Were the charges recorded at each step of the run, not at some alone?"""
    return "step" in run["charge"].dims
