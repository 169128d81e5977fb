"""The curvature along a run: with the run while it is recorded, and a group of its own in a study's tree."""

from __future__ import annotations

import xarray as xr

CURVATURE_STEP = "curvature_step"
_LIMITS = ("series_limit", "stability_limit", "growth_momentum", "growth_nesterov")


def without_curvature(run: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset | None]:
    """A run's dataset, and the curvature in it as one of its own; None if there is none."""
    if CURVATURE_STEP not in run.dims:
        return run, None
    limits = [name for name in _LIMITS if name in run.data_vars]
    elsewhere = [
        name
        for name, found in run.variables.items()
        if CURVATURE_STEP not in found.dims and name not in limits
    ]
    measured = run.drop_vars(elsewhere).drop_attrs(deep=False)
    return run.drop_dims(CURVATURE_STEP).drop_vars(limits), measured
