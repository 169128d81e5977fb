"""What a flow's truncated series leaves out of each step, read off the run."""

from __future__ import annotations

import numpy as np
import xarray as xr

from nm_ode.comparison.ratio import ratio
from nm_ode.results import run_info

HOLDS = 1e-3
"""A flow holds where its one-step defect is below this share of the update."""


def defects(run: xr.Dataset, order: int) -> xr.Dataset | None:
    """One-step defects of the iterated-map flow of this order along a full-batch run.

    f_K is the series (1/h) Σ (−1)^{j+1} Δ^j z/j cut off after K, so that a step of the flow misses the optimiser's by
    Δ^{K+1}z/(K+1), to leading order. Along the run Δ^{K+1}θ_k is a difference of recorded parameters: no gradient is
    spent. A large defect at the start is an optimiser's transient, which a flow of this order does not follow.

    Returns:
        Dimension `defect_step`: `defect` ‖Δ^{K+1}θ_k‖/(K+1) and `relative_defect`, over the update ‖θ_{k+1} − θ_k‖, at
        all but the last K steps, however far the flow was solved. None where not every step's theta was kept, the run
        is too short, or it is on minibatches, whose map is another each step.
    """
    steps = run["saved_step"].values
    full_batch = run_info(run).grid.is_full_batch
    if not full_batch or len(steps) < order + 2 or (np.diff(steps) != 1).any():
        return None
    theta = run["theta"].values.astype(np.float64)
    left_out = np.linalg.norm(np.diff(theta, n=order + 1, axis=0), axis=1) / (order + 1)
    updates = np.linalg.norm(np.diff(theta, axis=0), axis=1)
    return xr.Dataset(
        {
            "defect": ("defect_step", left_out),
            "relative_defect": ("defect_step", ratio(left_out, updates[: len(left_out)])),
        },
        coords={"defect_step": steps[: len(left_out)]},
    )


def holds_from(found: xr.Dataset) -> int:
    """The first step from which on the relative defect stays below HOLDS; −1 if there is none."""
    steps = found["defect_step"].values
    exceeds = np.flatnonzero(~(found["relative_defect"].values < HOLDS))
    first = int(exceeds[-1]) + 1 if exceeds.size else 0
    return int(steps[first]) if first < len(steps) else -1


def share_at_start(defect: np.ndarray, first: int) -> float:
    """Share of the summed defects that falls in the first steps; NaN if there are none."""
    known = defect[np.isfinite(defect)]
    total = float(known.sum())
    return float(known[:first].sum()) / total if total > 0 else float("nan")
