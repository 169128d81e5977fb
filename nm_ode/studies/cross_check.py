"""A flow solved by more engines than one: how far apart are they?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from torch import Tensor

from bridges import get_engine
from nm_ode.flows import Flow
from nm_ode.observers import Observer, sketch_in_place_of_theta
from nm_ode.results import SolveInfo, annotate, solve_info
from nm_ode.solving import solve
from nm_ode.studies.keeping import Checkpoints
from nm_ode.studies.progress import Progress
from nm_ode.studies.schema import Case


def cross_checked(
    solution: xr.Dataset,
    flow: Flow,
    run: xr.Dataset,
    case: Case,
    progress: Progress,
    kept: Checkpoints,
    *,
    theta0: Tensor | None = None,
    observe: Sequence[Observer] = (),
) -> xr.Dataset:
    """The solution with `engine_distance` ‖θ_other(t) − θ(t)‖ to that of each further engine of the case.

    Of a solution with a sketch in place of theta it is estimated from that of each.

    Further engines take their own method and the case's tolerances; the engine that solved takes another method, since
    by the same the distance would be zero, whatever the error.

    Args:
        theta0, observe: as the solution was made with.

    Raises:
        SolveError: another engine gave up.
        EngineError: another engine cannot start.
    """
    others = case.solver.engines[1:]
    if not others:
        return solution
    title, sketch = solve_info(solution).title, sketch_in_place_of_theta(observe)
    kept_of_each = "theta" if sketch is None else "theta_sketch"
    distances, methods = [], []
    for engine in others:
        method = _another_method(engine, solve_info(solution))
        options = case.solver.options() | {"engine": engine, "method": method, "step": None}
        report = progress(f"{title}, by {engine}", run.sizes["saved_step"])
        other = solve(
            flow,
            run,
            **options,
            theta0=theta0,
            record=["theta"],
            observe=[] if sketch is None else [sketch],
            check=False,
            on_sample=report,
            checkpoint=kept(f"by {engine}"),
        )
        info = solve_info(other)
        distance = np.linalg.norm(other[kept_of_each].values - solution[kept_of_each].values, axis=1)
        if (info.engine, info.method, info.step) == _how(solution):
            distance[1:] = np.nan  # "auto" has chosen what had solved it: the distance would say nothing
        distances.append(distance)
        methods.append(f"{info.engine} {info.method} ({info.engine_version})")
    return annotate(
        solution.assign(engine_distance=(("other_engine", "time"), np.stack(distances))).assign_coords(
            other_engine=np.array(others, dtype=object),
            other_method=("other_engine", np.array(methods, dtype=object)),
        )
    )


def _how(solution: xr.Dataset) -> tuple[str, str, float | None]:
    info = solve_info(solution)
    return info.engine, info.method, info.step


def _another_method(engine: str, solved: SolveInfo) -> str | None:
    """None, the engine's own choice, unless it may be what has solved the flow already."""
    if engine != solved.engine:
        return None
    others = [name for name, one in get_engine(engine).methods.items() if one.step != "required"]
    return next((name for name in others if name != solved.method), None)
