"""compare: a run and a flow's solution, step by step and layer by layer (THEORY.md §5)."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from nm_ode.annotations import annotate, layout_of

SOLVER_LIMIT = 0.1  # of the discretisation error, beyond which the solver's own error spoils the result


class AlignmentError(ValueError):
    """The run and the solution do not belong together."""


def compare(run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
    """Distance between a discrete run and a flow at the run's saved steps.

    Args:
        run: from `train`.
        solution: from `solve(flow, t=run)`, with theta recorded. One that stopped early is compared as
            far as it goes.

    Returns:
        Dimensions `step` (saved steps), `layer`. Variables `error` e_k = ‖θ(t_k) − θ_k‖,
        `motion` ‖θ_k − θ_0‖, `relative_error` (their ratio; NaN where nothing has moved), the same by
        layer, `loss_gap` L(θ(t_k)) − L(θ_k) if the solution has losses, and, if it was checked,
        `solver_error`, `solver_error_ratio` and the flag `solver_limited`. Attributes name the flow.

    Raises:
        AlignmentError: other times, other parameters, or theta was not recorded.
    """
    for name, dataset in (("run", run), ("solution", solution)):
        if "theta" not in dataset:
            raise AlignmentError(f"the {name} has no 'theta': record it to compare")
    if run.attrs["layout"] != solution.attrs["layout"]:
        raise AlignmentError("the run and the solution are of different models: their layouts differ")
    times, run_times = solution["time"].values, run["saved_time"].values
    count = len(times)
    scale = max(float(np.abs(run_times).max(initial=0.0)), np.finfo(float).tiny)
    if count > len(run_times) or np.abs(times - run_times[:count]).max(initial=0.0) > 1e-9 * scale:
        raise AlignmentError("the solution's times are not the run's saved times: solve with t=run")

    run = run.isel(saved_step=slice(count))
    discrete, continuous = run["theta"].values, solution["theta"].values
    layout = layout_of(run)
    difference, motion = continuous - discrete, discrete - discrete[:1]
    error, moved = np.linalg.norm(difference, axis=1), np.linalg.norm(motion, axis=1)
    layer_error, layer_moved = (
        layout.layer_norms(torch.from_numpy(part)).numpy() for part in (difference, motion)
    )
    result = xr.Dataset(
        {
            "error": ("step", error),
            "motion": ("step", moved),
            "relative_error": ("step", _ratio(error, moved)),
            "layer_error": (("step", "layer"), layer_error),
            "layer_relative_error": (("step", "layer"), _ratio(layer_error, layer_moved)),
        },
        coords={
            "step": run["saved_step"].values,
            "time": ("step", run["saved_time"].values),
            "layer": run["layer"].values,
        },
        attrs={
            name: solution.attrs[name]
            for name in ("flow", "title", "expected_order")
            if name in solution.attrs
        },
    )
    if "loss" in solution:
        result["loss_gap"] = ("step", solution["loss"].values - run["full_loss"].values)
    if "solver_error" in solution:
        solver_error = solution["solver_error"].values
        ratio = _ratio(solver_error, error)
        result["solver_error"] = ("step", solver_error)
        result["solver_error_ratio"] = ("step", ratio)
        # A check that did not finish says nothing good: NaN counts as limited, but for the start.
        result["solver_limited"] = ("step", ~(ratio <= SOLVER_LIMIT) & (error > 0))
    return annotate(result)


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """top / bottom, NaN where bottom is zero."""
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
