"""The grids of a run and a solution match, or they cannot be compared."""

from __future__ import annotations

import numpy as np
import xarray as xr

from nm_ode.errors import NmOdeError
from nm_ode.results import run_info, solve_info


class AlignmentError(NmOdeError, ValueError):
    """Two datasets of different models, times or symmetries, which cannot be compared."""


def run_at_times_of(solution: xr.Dataset, run: xr.Dataset) -> xr.Dataset:
    """The run's saved steps at the solution's times; a solution that stopped early has the first of them alone.

    Raises:
        AlignmentError: other times, or other parameters.
        ResultError: the one is no run of `train`, or the other no solution of `solve`.
    """
    if run_info(run).layout != solve_info(solution).layout:
        raise AlignmentError("the run and the solution are of different models: their layouts differ")
    times, run_times = solution["time"].values, run["saved_time"].values
    count = len(times)
    scale = max(float(np.abs(run_times).max(initial=0.0)), np.finfo(float).tiny)
    if count > len(run_times) or np.abs(times - run_times[:count]).max(initial=0.0) > 1e-9 * scale:
        raise AlignmentError("the solution's times are not the run's saved times: solve with t=run")
    return run.isel(saved_step=slice(count))
