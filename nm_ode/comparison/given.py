"""What a caller gives to be compared."""

from __future__ import annotations

from typing import Any

import xarray as xr

from nm_ode.arguments import said
from nm_ode.comparison.windows import Window
from nm_ode.errors import ArgumentError
from nm_ode.required import require_dataset
from nm_ode.results import ResultError, run_info


def require_run_and_solution(run: Any, solution: Any) -> None:
    """The kinds of the two, in their order.

    Raises:
        ArgumentError: one is no dataset, or they are the wrong way round.
    """
    require_dataset(run, "run", "nm_ode.train")
    require_dataset(solution, "solution", "nm_ode.solve")
    if _is_run(solution) and not _is_run(run):
        raise ArgumentError("compare(run, solution): the run comes first; a run was given as the solution")


def as_window(average: Any) -> Window | bool | None:
    """What a caller gives as `average`.

    Raises:
        ArgumentError: neither a window nor a word whether there is to be one.
    """
    if average is None or isinstance(average, bool | Window):
        return average
    raise ArgumentError(
        f"average must be True, False or a nm_ode.gaussian_window(width); {said(average)} was given"
    )


def _is_run(dataset: xr.Dataset) -> bool:
    try:
        run_info(dataset)
    except ResultError:
        return False
    return True
