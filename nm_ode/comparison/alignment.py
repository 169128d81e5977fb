"""Do a run and a solution belong together, and at which steps?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nm_ode.errors import NmOdeError


class AlignmentError(NmOdeError, ValueError):
    """The run and the solution do not belong together."""


def up_to(run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
    """The run's saved steps at the solution's times.

    Raises:
        AlignmentError: other times, or other parameters.
    """
    if run.attrs["layout"] != solution.attrs["layout"]:
        raise AlignmentError("the run and the solution are of different models: their layouts differ")
    times, run_times = solution["time"].values, run["saved_time"].values
    count = len(times)
    scale = max(float(np.abs(run_times).max(initial=0.0)), np.finfo(float).tiny)
    if count > len(run_times) or np.abs(times - run_times[:count]).max(initial=0.0) > 1e-9 * scale:
        raise AlignmentError("the solution's times are not the run's saved times: solve with t=run")
    return run.isel(saved_step=slice(count))
