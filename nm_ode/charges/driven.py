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
from nm_ode.results import ResultError, run_info
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

    @cached_property
    def durations(self) -> Array:
        """Flow time of each step, shape (N,)."""
        return np.diff(self.times)

    @property
    def momentum(self) -> float:
        """SGD's β."""
        return float(self.hyperparameters["momentum"])

    @property
    def dampening(self) -> float:
        """SGD's τ."""
        return float(self.hyperparameters["dampening"])

    @property
    def weight_decay(self) -> float:
        """λ."""
        return float(self.hyperparameters["weight_decay"])

    @property
    def nesterov(self) -> bool:
        """SGD's look-ahead."""
        return bool(self.hyperparameters["nesterov"])

    def cross_at(self, k: int) -> Array:
        """[w_k, v_{k+1}], shape (C,): [w, w] itself without Nesterov."""
        if not self.nesterov:
            return np.asarray(self.driver[k])
        if self.cross is None:
            raise LawError(
                "the law needs [w, v] of a run with Nesterov's momentum, and this one has no charge_cross_driver"
            )
        return np.asarray(self.cross[k])


def driven(run: xr.Dataset, *, with_residual: bool = False) -> Driven:
    """A run whose charges were recorded as the laws want it.

    Args:
        run: from `train`.
        with_residual: with the recorded ⟨g, ξ⟩.

    Raises:
        LawError: no run of `train`, no charges or not those of every step, or no step.
    """
    try:
        info = run_info(run)
    except ResultError as error:
        raise LawError(f"charges are predicted from a run of `train`; {error}") from error
    if "charge" not in run.variables:
        raise LawError("the run recorded no charges: train with observe=[Charges(symmetries)]")
    if "step" not in run["charge"].dims:
        raise LawError(
            "the run recorded its charges at some steps alone, and a law needs what drives them at each: train with "
            "Charges(symmetries, every=1)"
        )
    if info.beyond_laws:
        raise LawError(f"{info.beyond_laws}: the charges are recorded, but no law predicts them")
    if info.foreign_gradient and not with_residual:
        raise LawError(
            f"{info.foreign_gradient}; so a symmetry of the loss says nothing of its charges, and no law describes "
            "them: take law 'exact' with_residual=True, which has the recorded ⟨g, ξ⟩"
        )
    if not info.grid.steps:
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
        driver=run["charge_driver"].values,
        cross=run["charge_cross_driver"].values if "charge_cross_driver" in run else None,
        residual=run["constraint_residual"].values if with_residual else None,
        at_rest=not (info.warm_start and info.stateful),
    )
