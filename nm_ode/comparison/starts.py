"""A solution is compared with the run that it starts with, or not at all."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.comparison.alignment import AlignmentError
from nm_ode.results import RunInfo, SolveInfo

_ROUNDINGS = 16.0  # of the coarser of both dtypes, by which a start may differ from itself
_LOSS = 1e3  # roundings by which one loss may differ, over chunks or on another device


def require_same_start(run: xr.Dataset, solution: xr.Dataset, about_run: RunInfo, about: SolveInfo) -> None:
    """The solution starts where the run does, of the same loss, and is of the run's learning rate.

    Args:
        run: at the solution's times. A part of a solution without its start cannot be held against one.

    Raises:
        AlignmentError: it is not so; says what differs, by how much, and what to do.
    """
    lr = float(about_run.grid.lr[0]) if about_run.grid.steps else math.nan
    if about.lr is not None and not math.isclose(about.lr, lr, rel_tol=1e-9):
        raise AlignmentError(
            f"the solution is of {about.title} at lr = {about.lr:g}, and the run has lr = {lr:g}: compare it with a "
            "run at its own learning rate"
        )
    times = solution["time"].values
    if not times.size or (about.start_time is not None and times[0] != about.start_time):
        return
    eps = _eps(run, about)
    for mine, theirs in (("theta", "theta"), ("theta_sketch", "theta_sketch"), ("charge", "saved_charge")):
        if mine == "theta_sketch" and "theta" in solution and "theta" in run:
            continue  # they need not be by the same projection
        if mine in solution and theirs in run:
            _require_near(solution[mine].values[0], run[theirs].values[0], mine, eps)
    # A flow may have a state of its own where the optimiser has none.
    if about_run.warm_start and about_run.stateful and about.stateful and not about.warm_start:
        raise AlignmentError(
            "the run starts with the state of an optimiser under way, and the solution with one at rest: solve with "
            "t=run, which has that state"
        )
    if "loss" in solution and "full_loss" in run:
        _require_same_loss(float(solution["loss"].values[0]), float(run["full_loss"].values[0]), eps)


def require_same_charges(run: xr.Dataset, predicted: xr.Dataset) -> None:
    """Predicted charges start with the run's, and are at its times.

    Raises:
        AlignmentError: they are not.
    """
    for name in ("step", "time", "charge_step", "charge_time"):
        if name in predicted.coords and not np.allclose(
            predicted[name].values, run[name].values, rtol=1e-9, atol=0
        ):
            raise AlignmentError(f"the predicted charges are of another run: its steps have another {name}")
    _require_near(predicted["charge"].values[0], run["charge"].values[0], "charge", _eps(run))


def _require_near(mine: NDArray[np.floating], theirs: NDArray[np.floating], what: str, eps: float) -> None:
    if mine.shape != theirs.shape:
        return  # what is of other symmetries is said where they are compared
    apart, size = float(np.linalg.norm(mine - theirs)), float(np.linalg.norm(theirs))
    if apart > _ROUNDINGS * eps * size * (1e2 if what == "charge" else 1.0):
        raise AlignmentError(
            f"the solution starts elsewhere than the run: their first {what} are {apart:.2g} apart (of {size:.2g}): "
            "solve with t=run, which starts where the run does"
        )


def _require_same_loss(mine: float, theirs: float, eps: float) -> None:
    apart = abs(mine - theirs)
    if np.isfinite(apart) and apart > max(_LOSS * eps, 1e-6) * max(abs(mine), abs(theirs)):
        raise AlignmentError(
            f"the solution is of another loss than the run: at the same theta it is {mine:.6g}, and the run's is "
            f"{theirs:.6g}; solve a flow of the problem that was trained (to compare two losses all the same, solve "
            "without recording 'loss')"
        )


def _eps(run: xr.Dataset, about: SolveInfo | None = None) -> float:
    """Rounding of the coarser of the dtypes that run and solution were computed in."""
    dtypes = [run["theta"].dtype if "theta" in run else np.dtype(np.float32)]
    if about is not None:
        dtypes.append(np.dtype(about.dtype or "float32"))
    return max(float(np.finfo(dtype).eps) for dtype in dtypes)
