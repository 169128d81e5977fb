"""What a law needs of a run: its steps, its optimiser, the first charges, and what drives them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.charges.errors import LawError
from nm_ode.results import ResultError, RunInfo, TimeGrid, run_info
from nm_ode.symmetries import KINDS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Driven:
    """Charges Q of a run, and what drives them.

    Attributes:
        lr: shape (N,), η at each step.
        times: shape (N+1,), flow time at each step's start and at the end.
        momentum, dampening, weight_decay, nesterov: β, τ and λ of SGD; 0 and False where the optimiser has none.
        start: shape (C,), Q_0.
        translation: shape (C,), bool: charges that are linear in theta.
        driver: shape (N, C), [w, w] of the update −ηw; not read for translations.
        cross: shape (N, C), [w, v_{k+1}]; needed with Nesterov only.
        residual: shape (N, C), [g, θ] where it is not zero (a normalisation's ε); None for zero.
        optimizer: the class's name.
        at_rest: did the run start without a velocity?
    """

    lr: Array
    times: Array
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    start: Array
    translation: NDArray[np.bool_]
    driver: Array
    cross: Array | None = None
    residual: Array | None = None
    optimizer: str = "SGD"
    at_rest: bool = True

    @cached_property
    def durations(self) -> Array:
        """Flow time of each step, shape (N,): η, and η(1−τ) with momentum."""
        return np.diff(self.times)

    def cross_at(self, k: int) -> Array:
        """[w_k, v_{k+1}], shape (C,): [w, w] itself without Nesterov."""
        if not self.nesterov:
            return np.asarray(self.driver[k])
        assert self.cross is not None  # `Law.require` has seen to it
        return np.asarray(self.cross[k])


def driven(run: xr.Dataset, *, with_residual: bool = False) -> Driven:
    """A run whose charges were recorded as the laws want it.

    Args:
        run: from `train`.
        with_residual: with the recorded ⟨g, ξ⟩.

    Raises:
        LawError: no run of `train`, no charges, or no step.
    """
    info = _info(run)
    if "charge" not in run.variables:
        raise LawError(
            "the run recorded no charges: give `train` the symmetries whose charges it shall record"
        )
    if not run.sizes["step"]:
        raise LawError(
            "the run has no step whose charges a law could predict: its loss was not finite from the start"
        )
    hyperparameters = info.hyperparameters
    return Driven(
        lr=info.grid.lr,
        times=info.grid.times,
        momentum=float(hyperparameters.get("momentum", 0.0)),
        dampening=float(hyperparameters.get("dampening", 0.0)),
        weight_decay=float(hyperparameters.get("weight_decay", 0.0)),
        nesterov=bool(hyperparameters.get("nesterov", False)),
        start=run["charge"].values[0],
        translation=np.array(
            [KINDS[kind].form.degree == 1 for kind in run["kind"].values.tolist()], dtype=bool
        ),
        driver=run["charge_driver"].values,
        cross=run["charge_cross_driver"].values if "charge_cross_driver" in run else None,
        residual=run["constraint_residual"].values if with_residual else None,
        optimizer=info.optimizer,
        at_rest=not (info.warm_start and info.stateful),
    )


def _info(run: xr.Dataset) -> RunInfo:
    try:
        return run_info(run)
    except ResultError as error:
        if "optimizer_text" in run.attrs:
            return _transitional_info(run)
        raise LawError(f"charges are predicted from a run of `train`; {error}") from error


def _transitional_info(run: xr.Dataset) -> RunInfo:
    """TRANSITION: of a run with flat attributes; goes when `train` writes RunInfo."""
    from nm_ode.results.schema import layout_of

    attrs, lr = run.attrs, run["lr"].values
    end = run["time"].values[-1] + lr[-1] * attrs["time_per_step"] / attrs["lr"] if len(lr) else 0.0
    if len(run["saved_step"]) and int(run["saved_step"][-1]) == len(lr):
        end = float(run["saved_time"][-1])
    grid = TimeGrid(lr, np.append(run["time"].values, end), attrs["batch_size"], attrs["seed"], 0)
    return RunInfo(
        attrs["optimizer"],
        {
            name: attrs[name]
            for name in ("momentum", "dampening", "weight_decay", "nesterov")
            if name in attrs
        },
        attrs["optimizer_text"],
        attrs["time_per_step"],
        stateful="final_state" in run,
        warm_start=bool(attrs["warm_start"]),
        grid=grid,
        layout=layout_of(run),  # type: ignore[no-untyped-call]
    )
