"""A flow solved by more engines than one: how far apart are they?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nm_ode.flows import Flow
from nm_ode.results import annotate, solve_info
from nm_ode.solving import solve
from nm_ode.studies.keeping import Checkpoints
from nm_ode.studies.progress import Progress
from nm_ode.studies.schema import Case


def cross_checked(
    solution: xr.Dataset, flow: Flow, run: xr.Dataset, case: Case, progress: Progress, kept: Checkpoints
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
    title = solve_info(solution).title
    distances, methods = [], []
    for engine in others:
        options = case.solver.options() | {"engine": engine, "method": None, "step": None}
        report = progress(f"{title}, by {engine}", run.sizes["saved_step"])
        other = solve(
            flow,
            run,
            **options,
            record=["theta"],
            check=False,
            on_sample=report,
            checkpoint=kept(f"by {engine}"),
        )
        info = solve_info(other)
        distances.append(np.linalg.norm(other["theta"].values - solution["theta"].values, axis=1))
        methods.append(f"{info.engine} {info.method} ({info.engine_version})")
    return annotate(
        solution.assign(engine_distance=(("other_engine", "time"), np.stack(distances))).assign_coords(
            other_engine=np.array(others, dtype=object),
            other_method=("other_engine", np.array(methods, dtype=object)),
        )
    )
