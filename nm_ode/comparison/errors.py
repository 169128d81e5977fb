"""compare: a run and a flow's solution, step by step and layer by layer (THEORY.md §5)."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nm_ode.comparison.alignment import AlignmentError, up_to
from nm_ode.comparison.charges import charge_errors
from nm_ode.comparison.defects import defects
from nm_ode.comparison.ratio import ratio
from nm_ode.results.schema import annotate, layout_of

SOLVER_LIMIT = 0.1  # of the discretisation error, beyond which the solver's own error spoils the result


def compare(run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
    """How far a flow, or a law of the charges, is from a discrete run.

    Args:
        run: from `train`.
        solution: from `solve(flow, t=run)`, with theta or charges recorded (one that stopped early is compared as
            far as it goes); or from `predict_charges` or `solve_charges`.

    Returns:
        Dimensions `step` (saved steps; all steps of a law), `layer`, `charge_index`, `family`. With theta: `error`
        e_k = ‖θ(t_k) − θ_k‖, `motion` ‖θ_k − θ_0‖, `relative_error` (their ratio; NaN where nothing has moved), the
        same by layer, `loss_gap` L(θ(t_k)) − L(θ_k) if the solution has losses, and, if it was checked,
        `solver_error`, `solver_error_ratio` and the flag `solver_limited`; of a modified flow in iterated-map form
        also what `defects` says, if every step's theta was kept. With charges what `charge_errors` says. Attributes
        name the flow or law.

    Raises:
        AlignmentError: other times, other parameters, other symmetries, or neither theta nor charges in both.
    """
    found: list[xr.Dataset] = []
    if "time" in solution.dims:
        whole, run = run, up_to(run, solution)
        if "theta" in solution and "theta" in run:
            found.append(_theta_errors(run, solution))
            along = defects(whole, solution.attrs["map_order"]) if "map_order" in solution.attrs else None
            if along is not None:
                found.append(along)
        if "charge" in solution.data_vars and "saved_charge" in run:
            found.append(charge_errors(run, run["saved_charge"], solution["charge"]))
        steps, times = run["saved_step"].values, run["saved_time"].values
    elif "charge" in solution.data_vars:
        if "charge" not in run.data_vars or run.sizes["step"] != solution["charge"].sizes["step"]:
            raise AlignmentError("the predicted charges are of another run")
        found.append(charge_errors(run, run["charge"], solution["charge"]))
        steps, times = run["step"].values, run["time"].values
    if not found:
        lacking = "solution" if "theta" not in solution else "run"
        raise AlignmentError(
            f"the {lacking} has no 'theta': record it to compare, or give run and solution the same symmetries"
        )
    names = ("flow", "law", "title", "expected_order")
    result = xr.merge(found, combine_attrs="drop_conflicts").assign_coords(step=steps, time=("step", times))
    return annotate(
        result.assign_attrs({name: solution.attrs[name] for name in names if name in solution.attrs})
    )


def _theta_errors(run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
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
            "relative_error": ("step", ratio(error, moved)),
            "layer_error": (("step", "layer"), layer_error),
            "layer_relative_error": (("step", "layer"), ratio(layer_error, layer_moved)),
        },
        coords={"layer": run["layer"].values},
    )
    if "loss" in solution:
        result["loss_gap"] = ("step", solution["loss"].values - run["full_loss"].values)
    if "solver_error" in solution:
        solver_error = solution["solver_error"].values
        share = ratio(solver_error, error)
        result["solver_error"] = ("step", solver_error)
        result["solver_error_ratio"] = ("step", share)
        # A check that did not finish says nothing good: NaN counts as limited, but for the start.
        result["solver_limited"] = ("step", ~(share <= SOLVER_LIMIT) & (error > 0))
    return result
