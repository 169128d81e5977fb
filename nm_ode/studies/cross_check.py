"""A flow solved by more engines than one: how far apart are they?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from nm_ode.flows import Flow
from nm_ode.results.schema import annotate
from nm_ode.solving import solve
from nm_ode.studies.case import Case

Progress = Callable[[str, int], Callable[[int], None]]


def cross_checked(
    solution: xr.Dataset, flow: Flow, run: xr.Dataset, case: Case, progress: Progress
) -> xr.Dataset:
    """The solution with `engine_distance` ‖θ_other(t) − θ(t)‖ to that of each further engine of the case.

    Further engines take their own method and the case's tolerances.

    Raises:
        SolveError: another engine gave up.
        EngineError: another engine cannot start.
    """
    others = case.solver.engines[1:]
    if not others:
        return solution
    distances, methods = [], []
    for engine in others:
        options = case.solver.options() | {"engine": engine, "method": None, "step": None}
        report = progress(f"{solution.attrs['title']}, by {engine}", run.sizes["saved_step"])
        other = solve(flow, run, **options, record=["theta"], check=False, on_sample=report)
        distances.append(np.linalg.norm(other["theta"].values - solution["theta"].values, axis=1))
        methods.append(f"{other.attrs['engine']} {other.attrs['method']} ({other.attrs['engine_version']})")
    return annotate(
        solution.assign(engine_distance=(("other_engine", "time"), np.stack(distances))).assign_coords(
            other_engine=np.array(others, dtype=object),
            other_method=("other_engine", np.array(methods, dtype=object)),
        )
    )
