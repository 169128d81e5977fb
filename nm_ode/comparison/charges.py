"""Predicted charges beside the recorded ones (docs/theory.md §3, §5)."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from nm_ode.comparison.alignment import AlignmentError
from nm_ode.comparison.ratio import ratio
from nm_ode.observers import CHARGES
from nm_ode.results import run_info

Array = NDArray[np.float64]

_ROUNDING = 1e3  # epsilons of the charge's scale, below which a charge is taken not to move


@np.errstate(over="ignore", invalid="ignore")  # of charges that diverge
def charge_errors(run: xr.Dataset, recorded: xr.DataArray, predicted: xr.DataArray) -> xr.Dataset:
    """Errors of each charge and of each symmetry.

    Args:
        run: with `generator_norm`, for the size of what is rounding.
        recorded, predicted: shape (times, charge_index), at the same times.

    Returns:
        Dimensions: the first of `recorded` (`step`, or `saved_step`), `charge_index`, `symmetry`. `charge_error`
        (predicted − recorded), `charge_motion` max_k |Q_k − Q_0|, `charge_relative_error` |error| / motion, and
        `symmetry_relative_error`: the 2-norm of the errors over a symmetry's channels, over the largest 2-norm of
        their motion. NaN where nothing moves but by rounding, of which `symmetry_at_rest` says so.

    Raises:
        AlignmentError: other symmetries.
    """
    for name in ("charge_symmetry", "channel"):
        if not np.array_equal(recorded[name].values, predicted[name].values):
            raise AlignmentError("the charges are of different symmetries: record both with the same ones")
    along = str(recorded.dims[0])
    error = predicted.values - recorded.values
    away = recorded.values - recorded.values[:1]
    farthest = np.abs(away).max(axis=0)
    still = _still(run, farthest)
    motion = np.where(still, 0.0, farthest)
    symmetry_of = recorded["charge_symmetry"].values
    names = list(dict.fromkeys(symmetry_of.tolist()))
    members = [symmetry_of == name for name in names]
    at_rest = still & np.isfinite(farthest)  # what overflowed is not at rest
    moved = [float(np.linalg.norm(away[:, where & ~still], axis=1).max(initial=0.0)) for where in members]
    relative = [
        np.linalg.norm(error[:, where], axis=1) / size if size > 0 else np.full(len(error), np.nan)
        for where, size in zip(members, moved, strict=True)
    ]
    return xr.Dataset(
        {
            "charge_error": ((along, CHARGES), error),
            "charge_motion": (CHARGES, motion),
            "charge_relative_error": ((along, CHARGES), ratio(np.abs(error), motion)),
            "symmetry_relative_error": ((along, "symmetry"), np.stack(relative, axis=1)),
            "symmetry_at_rest": ("symmetry", np.array([at_rest[where].all() for where in members])),
        },
        coords={
            **{name: (CHARGES, recorded[name].values) for name in ("charge_symmetry", "kind", "channel")},
            "symmetry": np.array(names, dtype=object),
        },
    )


def _still(run: xr.Dataset, motion: Array) -> NDArray[np.bool_]:
    """Charges whose motion is rounding: of ‖θ_A‖² where they are squares, of √n where they are sums of n entries."""
    norm = run["generator_norm"].values.max(axis=0)
    scale = np.maximum(np.abs(run["charge"].values).max(axis=0), norm**2)
    # Sums over theta are in float64, whatever the parameters are in.
    dtype = run_info(run).dtype or run["theta" if "theta" in run else "loss"].dtype.name
    return np.asarray(motion <= _ROUNDING * torch.finfo(getattr(torch, dtype)).eps * scale)
