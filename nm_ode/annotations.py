"""Names and units of every variable in the tree, in one place, so that no dataset invents its own."""

from __future__ import annotations

import json

import xarray as xr

from nm_ode.layout import Layout, Slot

# name: (long_name, units). The loss has no unit, so theta and time (theta's change over its gradient)
# have none either; "1" is the CF convention for dimensionless.
_VARIABLES = {
    "channel": ("number of the charge within its symmetry", ""),
    "charge": ("charge Q of a symmetry", "1"),
    "charge_error": ("predicted minus recorded charge", "1"),
    "charge_motion": ("largest distance of the recorded charge from its start", "1"),
    "charge_relative_error": ("distance to the recorded charge over its motion", "1"),
    "charge_cross_driver": ("[w, v] of the update −lr·w and the velocity after it", "1"),
    "charge_driver": ("[w, w] of the update −lr·w, on the symmetry's slices", "1"),
    "constraint_residual": ("⟨gradient, generator⟩, which the symmetry makes zero", "1"),
    "generator_norm": ("norm of the symmetry's generator ‖ξ(θ)‖", "1"),
    "final_state": ("the optimiser's whole state after the last step, theta first", "1"),
    "initial_state": ("the optimiser's whole state before the first step, theta first", "1"),
    "kind": ("kind of symmetry", ""),
    "lr": ("learning rate of the step", "1"),
    "symmetry": ("name of the symmetry", ""),
    "epsilon": ("largest ε of the normalisations that absorb the transformation", "1"),
    "epsilon_share": ("gradient constraint's residual that the ε's explain, relative", "1"),
    "gradient_residual": ("gradient constraint's residual |⟨g, ξ⟩| / (‖g‖ ‖ξ‖)", "1"),
    "hessian_residual": ("Hessian constraint's residual ‖Hξ + ∂_ξ g‖, relative", "1"),
    "n_charges": ("number of charges", "1"),
    "unexplained_residual": ("gradient constraint's residual without the ε's, relative", "1"),
    "within": ("matrix symmetry whose diagonal these charges are", ""),
    "crossing_share": ("share of units that cross their kink in one step, mean over some steps", "1"),
    "expected_order": ("order in lr that theory gives for smooth losses", "1"),
    "flow": ("flow", ""),
    "flow_title": ("what the flow is", ""),
    "largest_normalised_sharpness": ("largest lr · λ_max along the path", "1"),
    "layer_observed_order": ("order in lr of each layer's error, by least squares", "1"),
    "layer_order_standard_error": ("standard error of each layer's order", "1"),
    "left_out": ("why this point is not in the fit", ""),
    "observed_order": ("order in lr of the error, by least squares", "1"),
    "order_standard_error": ("standard error of the order", "1"),
    "rounding": ("error below which rounding of the run itself is seen", "1"),
    "start_share": ("share of the summed one-step defects in the first tenth of the run", "1"),
    "verdict": ("the order in words, and why it falls short if it does", ""),
    "curvature_step": ("optimiser step at which curvature was measured", "step"),
    "curvature_time": ("flow time at which curvature was measured", "lr · step"),
    "sharpness": ("largest eigenvalue of the Hessian that the optimiser sees", "1"),
    "normalised_sharpness": ("sharpness times the learning rate that multiplies it", "1"),
    "defect_step": ("optimiser step", "step"),
    "defect": ("truncation of the flow's series over one step, of θ", "1"),
    "relative_defect": ("truncation of the flow's series over one step, over the update", "1"),
    "engine_distance": ("distance to the solution by another engine", "1"),
    "other_engine": ("engine that the solution is checked by", ""),
    "other_method": ("its method and version", ""),
    "error": ("distance to the discrete trajectory ‖θ(t_k) − θ_k‖", "1"),
    "full_loss": ("loss over all samples", "1"),
    "grad_norm": ("gradient norm ‖∇L‖", "1"),
    "layer": ("layer (module that owns parameters)", ""),
    "layer_error": ("distance to the discrete trajectory, of each layer", "1"),
    "layer_grad_norm": ("gradient norm of each layer", "1"),
    "layer_relative_error": ("distance to the discrete trajectory over the layer's motion", "1"),
    "layer_update_norm": ("norm of the update of each layer", "1"),
    "family": ("symmetry", ""),
    "family_relative_error": ("distance to the recorded charges over their motion, of each symmetry", "1"),
    "loss": ("loss", "1"),
    "loss_gap": ("loss of the flow minus loss of the discrete run", "1"),
    "motion": ("distance from the start ‖θ_k − θ_0‖", "1"),
    "relative_error": ("distance to the discrete trajectory over its motion", "1"),
    "saved_charge": ("charge Q at saved steps", "1"),
    "saved_step": ("optimiser step at which theta was kept", "step"),
    "saved_time": ("flow time of the saved step", "lr · step"),
    "solver_error": ("distance to the solution at a tighter tolerance", "1"),
    "solver_error_ratio": ("solver's error over the discretisation error", "1"),
    "solver_limited": ("solver's error above a tenth of the discretisation error", ""),
    "step": ("optimiser step", "step"),
    "theta": ("parameters", "1"),
    "time": ("flow time", "lr · step"),
    "update_norm": ("norm of the update ‖θ_{k+1} − θ_k‖", "1"),
}


def annotate(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with `long_name` and `units` on every variable and coordinate.

    Raises:
        KeyError: a variable that has no entry here.
    """
    for name in dataset.variables:
        long_name, units = _VARIABLES[str(name)]
        dataset[name].attrs.update(long_name=long_name, units=units)
    return dataset


def layout_attrs(layout: Layout) -> dict[str, str]:
    """The layout as an attribute: `layout`, JSON, a list of [name, shape, start]."""
    return {"layout": json.dumps([[slot.name, list(slot.shape), slot.start] for slot in layout.slots])}


def layout_of(dataset: xr.Dataset) -> Layout:
    """The layout that `layout_attrs` wrote."""
    entries = json.loads(dataset.attrs["layout"])
    return Layout(tuple(Slot(name, tuple(shape), start) for name, shape, start in entries))
