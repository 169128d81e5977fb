"""Where a flow of higher order is farther from the run than one of lower order, the sharpness, which says why."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nm_ode.comparison import higher_order_is_farther
from nm_ode.loss.spectrum import Sharpness, sharpness
from nm_ode.observers.curvature import as_seen, limits
from nm_ode.results import annotate
from nm_ode.results.store import StoreWriter
from nm_ode.studies.build import Study

_POINTS = 5


def explain_orders(study: Study, writer: StoreWriter, run: xr.Dataset) -> None:
    """Write `/discrete/curvature` where it explains something and the case did not ask for it.

    Not for Adam, whose preconditioner is in states that a run does not keep.
    """
    if study.case.stability is not None or study.optimizer.multiscale or "theta" not in run:
        return
    if writer.read("discrete/curvature") is None and _is_asked(study, writer) and study.problem.has_hessian:
        writer.write("discrete/curvature", _measured(study, run))


def _is_asked(study: Study, writer: StoreWriter) -> bool:
    found = []
    for flow in study.flows:
        compared = writer.read(f"comparison/{study.labels(flow)[0]}")
        if compared is not None and compared.sizes.get("saved_step"):
            last = compared.isel(saved_step=-1)
            found.append((flow.expected_order, float(last["relative_error"])))
    return higher_order_is_farther(found)


def _measured(study: Study, run: xr.Dataset) -> xr.Dataset:
    """At some of the run's saved steps; each Lanczos starts from the eigenvector before."""
    saved = run.sizes["saved_step"]
    places = sorted({round(place) for place in np.linspace(0, saved - 1, min(_POINTS, saved)).tolist()})
    rows, last = [], None
    for place in places:
        at = run.isel(saved_step=place)
        step = min(
            int(at["saved_step"]), run.sizes["step"] - 1
        )  # after the last the learning rate is that of the last
        theta = torch.from_numpy(np.array(at["theta"].values)).to(study.problem.theta0)
        last = sharpness(study.problem, theta, v0=None if last is None else last.vector)
        rows.append(_row(study, last, float(run["lr"].values[step])))
    along = "curvature_step"
    measured = {name: (along, np.array([row[name] for row in rows])) for name in rows[0]}
    return annotate(
        xr.Dataset(
            {**measured, **limits(study.optimizer)},
            coords={
                along: run["saved_step"].values[places],
                "curvature_time": (along, run["saved_time"].values[places]),
            },
        )
    )


def _row(study: Study, found: Sharpness, lr: float) -> dict[str, float]:
    return {**as_seen(study.optimizer, found, lr), "hvp_evaluations": found.hvp_evaluations}
