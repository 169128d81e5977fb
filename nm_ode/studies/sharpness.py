"""Where a flow of higher order is farther from the run than one of lower order, the sharpness, which says why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
import xarray as xr

from nm_ode.comparison import higher_order_is_farther
from nm_ode.flows import Flow
from nm_ode.observers import Context, Recording, View, spread_steps
from nm_ode.observers.sharpnesses import Sharpnesses
from nm_ode.results import run_info
from nm_ode.results.store import StoreWriter
from nm_ode.studies.build import Study

_POINTS = 5


def explain_orders(study: Study, writer: StoreWriter, run: xr.Dataset, flows: Sequence[Flow]) -> None:
    """Write `/discrete/curvature` where it explains something and the case did not ask for it.

    Not for Adam, whose preconditioner is in states that a run does not keep.

    Args:
        flows: that were solved beside the run.
    """
    if study.case.stability is not None or study.optimizer.multiscale or "theta" not in run:
        return
    asked = writer.read("discrete/curvature") is None and _is_asked(study, writer, flows)
    if asked and study.problem.has_hessian:
        writer.write("discrete/curvature", _measured(study, run))


def _is_asked(study: Study, writer: StoreWriter, flows: Sequence[Flow]) -> bool:
    found = []
    for flow in flows:
        name, _, beside = study.labels(flow)
        compared = writer.read(f"comparison/{name}")
        if compared is not None and compared.sizes.get("saved_step"):
            last = compared.isel(saved_step=-1)
            found.append((beside, (flow.expected_order, float(last["relative_error"]))))
    return any(
        a == b and higher_order_is_farther(one, other) for (a, one), (b, other) in permutations(found, 2)
    )


def _measured(study: Study, run: xr.Dataset) -> xr.Dataset:
    """What `Curvature` records, at some of the run's saved steps."""
    problem, saved, lrs = study.problem, run["saved_step"].values.tolist(), run["lr"].values
    places = spread_steps(len(saved) - 1, _POINTS)
    grid = run_info(run).grid
    context = Context(problem, study.optimizer, grid.steps, saved, problem.device, grid)
    recording = Recording([Sharpnesses(context, study.optimizer, [saved[i] for i in places])], context)
    for i in places:
        at = run.isel(saved_step=i)
        lr = float(lrs[min(saved[i], len(lrs) - 1)])  # after the last step that of the last
        theta = torch.from_numpy(np.array(at["theta"].values)).to(problem.theta0)
        recording.observe(View(problem, saved[i], float(at["saved_time"]), theta, lr=lr))
    return recording.dataset()
