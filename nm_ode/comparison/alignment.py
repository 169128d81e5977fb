"""The grids of a run and a solution match, or they cannot be compared."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.errors import NmOdeError
from nm_ode.results import run_info, solve_info


class AlignmentError(NmOdeError, ValueError):
    """Two datasets of different models, times or symmetries, which cannot be compared."""


def places_of(solution: xr.Dataset, run: xr.Dataset) -> NDArray[np.intp]:
    """Which of the run's saved steps are at the solution's times: all, the first of a solution that stopped early, or
    some of them.

    Raises:
        AlignmentError: other times, or other parameters.
        ResultError: the one is no run of `train`, or the other no solution of `solve`.
    """
    if run_info(run).layout != solve_info(solution).layout:
        raise AlignmentError("the run and the solution are of different models: their layouts differ")
    times, run_times = solution["time"].values, run["saved_time"].values
    rounding = 1e-9 * max(float(np.abs(run_times).max(initial=0.0)), np.finfo(float).tiny)
    places = np.searchsorted(run_times, times - rounding)
    from_its_start = not places.size or places[0] == 0
    there = from_its_start and (places < len(run_times)).all()
    if not there or np.abs(times - run_times[places]).max(initial=0.0) > rounding:
        raise AlignmentError("the solution's times are not the run's saved times: solve with t=run")
    return places
