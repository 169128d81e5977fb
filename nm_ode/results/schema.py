"""Names and units of every variable in the tree, in one place, so that no dataset invents its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True)
class Variable:
    """What a variable is: an observer declares its own.

    Args:
        dims: names of its dimensions beyond the one along which it is observed.
        long_name: for a reader and for axes.
        units: "1" for a number without a unit.

    Example:
        >>> import nm_ode
        >>> nm_ode.Variable(("layer",), "largest absolute weight of each layer")
        Variable(dims=('layer',), long_name='largest absolute weight of each layer', units='1')
    """

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"


# The loss has no unit, so theta and time (theta's change over its gradient) have none either; "1" is the CF convention
# for dimensionless.
DESCRIBED = {
    "averaged_grad_norm": ("root of the run's time average of ‖∇L‖²", "1"),
    "averaged_grad_norm_gap": (
        "the flow's ‖∇L‖, with the oscillation's part where it predicts that, minus the run's averaged one",
        "1",
    ),
    "averaged_loss": ("loss over all samples, the run's own time average", "1"),
    "averaged_loss_gap": (
        "the flow's loss, with the oscillation's part where it predicts that, minus the run's averaged loss",
        "1",
    ),
    "beside": ("over whose samples the flow's loss is, beside a run on minibatches", ""),
    "causes": ("what explains an order that falls short, by name", ""),
    "channel": ("number of the charge within its symmetry", ""),
    "charge": ("charge Q of a symmetry", "1"),
    "charge_cross_driver": ("[w, v] of the update −lr·w and the velocity after it", "1"),
    "charge_driver": ("[w, w] of the update −lr·w, on the symmetry's slices", "1"),
    "charge_error": ("predicted minus recorded charge", "1"),
    "charge_motion": ("largest distance of the recorded charge from its start", "1"),
    "charge_relative_error": ("distance to the recorded charge over its motion", "1"),
    "charge_symmetry": ("name of the symmetry that the charge belongs to", ""),
    "class_of_charge": ("class of charges, whose parameters lie in the same groups of the optimiser", ""),
    "class_parameter": ("a parameter of the class, whose learning rate is the class's", ""),
    "constraint_by": ("by which of the symmetry's generators its Hessian constraint was measured", ""),
    "constraint_epsilon": ("largest ε of the normalisations that absorb the transformation", "1"),
    "constraint_kind": ("kind of symmetry", ""),
    "constraint_products": ("Hessian products spent on the constraints", "1"),
    "constraint_reason": ("why the Hessian constraint was not measured; empty where it was", ""),
    "constraint_residual": ("⟨gradient, generator⟩, which the symmetry makes zero", "1"),
    "constraint_symmetry": ("symmetry whose constraints were measured", ""),
    "critical": ("number of a critical direction, the sharpest first", ""),
    "critical_edge": ("eigenvalue of the Hessian at the edge of stability", "1"),
    "crossing_share": ("share of units that cross their kink in one step, mean over some steps", "1"),
    "crossing_step": ("optimiser step at which crossings were counted", "step"),
    "crossing_time": ("flow time at which crossings were counted", "1"),
    "curvature_constraint": ("Hessian constraint's residual ‖Hξ + (∂ξ)ᵀg‖ / (‖Hξ‖ + ‖(∂ξ)ᵀg‖)", "1"),
    "curvature_constraint_floor": ("change of that residual where all is rounded anew", "1"),
    "curvature_step": ("optimiser step at which curvature was measured", "step"),
    "curvature_time": ("flow time at which curvature was measured", "1"),
    "defect": ("truncation of the flow's series over one step, of θ", "1"),
    "defect_step": ("optimiser step", "step"),
    "engine_distance": ("distance to the solution by another engine", "1"),
    "epsilon": ("largest ε of the normalisations that absorb the transformation", "1"),
    "epsilon_share": ("gradient constraint's residual that the ε's explain, relative", "1"),
    "error": ("distance to the run ‖θ(t_k) − θ_k‖", "1"),
    "error_standard_error": ("standard error of the distance, where it is estimated from sketches", "1"),
    "error_to_average": ("distance to the run's own time average ‖θ(t_k) − θ̄_k‖", "1"),
    "error_to_average_standard_error": ("standard error of that distance, estimated from sketches", "1"),
    "expected_order": ("expected order in lr: theory's, for smooth losses", "1"),
    "final_state": ("the optimiser's whole state after the last step, theta first", "1"),
    "flow": ("flow", ""),
    "flow_title": ("what the flow is", ""),
    "foreseen_oscillation": (
        "oscillation along the sharpest direction foreseen from the curvature, root mean square",
        "1",
    ),
    "foreseen_step": (
        "step at which the oscillation is foreseen to reach the size at which the run leaves the flow",
        "step",
    ),
    "full_loss": ("loss over all samples", "1"),
    "generator_norm": ("norm of the symmetry's generator ‖ξ(θ)‖", "1"),
    "grad_norm": ("gradient norm ‖∇L‖", "1"),
    "gradient_constraint": (
        "gradient constraint's residual |⟨g, ξ⟩| / (‖g‖ ‖ξ‖), largest of the charges",
        "1",
    ),
    "gradient_constraint_floor": ("change of that residual where all is rounded anew", "1"),
    "gradient_cosine": ("cosine of the angle to the gradient of the record before", "1"),
    "gradient_residual": ("gradient constraint's residual |⟨g, ξ⟩| / (‖g‖ ‖ξ‖)", "1"),
    "gradient_update": ("⟨∇L, Δθ⟩ of the step's gradient and its update", "1"),
    "growth_momentum": (
        "momentum β of the recursion by which an oscillation grows past the stability limit",
        "1",
    ),
    "growth_nesterov": ("is that recursion the one of Nesterov's look-ahead (1) or not (0)", "1"),
    "hessian_residual": ("Hessian constraint's residual ‖Hξ + ∂_ξ g‖, relative", "1"),
    "hessian_symmetry": ("symmetry whose Hessian constraint was measured", ""),
    "hvp_evaluations": ("Hessian products spent", "1"),
    "initial_state": ("the optimiser's whole state before the first step, theta first", "1"),
    "kind": ("kind of symmetry", ""),
    "largest_normalised_sharpness": ("largest lr · λ_max along the path", "1"),
    "layer": ("layer (module that owns parameters)", ""),
    "layer_error": ("distance to the run, of each layer", "1"),
    "layer_error_standard_error": ("standard error of each layer's distance, estimated from sketches", "1"),
    "layer_grad_norm": ("gradient norm of each layer", "1"),
    "layer_gradient_cosine": ("cosine of the angle to the gradient of the record before, of each layer", "1"),
    "layer_gradient_update": ("⟨∇L, Δθ⟩ of each layer", "1"),
    "layer_momentum_norm": ("norm of the optimiser's momentum after the step, of each layer", "1"),
    "layer_observed_order": ("observed order in lr of each layer's error, by least squares", "1"),
    "layer_order_standard_error": ("standard error of each layer's order", "1"),
    "layer_relative_error": ("distance to the run over the layer's motion", "1"),
    "layer_relative_error_standard_error": ("standard error of that ratio, estimated from sketches", "1"),
    "layer_theta_gradient": ("⟨θ, ∇L⟩ of each layer", "1"),
    "layer_theta_norm": ("norm of each layer's parameters", "1"),
    "layer_theta_update": ("⟨θ, Δθ⟩ of each layer", "1"),
    "layer_update_norm": ("norm of the update of each layer", "1"),
    "leaving_size": (
        "oscillation along the sharpest direction that takes from λ_max what the path adds",
        "1",
    ),
    "left_out": ("why this point is not in the fit", ""),
    "loss": ("loss", "1"),
    "loss_gap": ("loss of the flow minus loss of the run", "1"),
    "lr": ("learning rate of the step", "1"),
    "measured_variance": ("variance of the run about its own time average, tr Σ, measured", "1"),
    "member": ("member of the ensemble", ""),
    "momentum_norm": ("norm of the optimiser's momentum after the step", "1"),
    "motion": ("motion of the run: distance from its start ‖θ_k − θ_0‖", "1"),
    "motion_standard_error": ("standard error of the motion, where it is estimated from sketches", "1"),
    "n_charges": ("number of charges", "1"),
    "noise_theta": ("parameters at which the noise's covariance was measured", "1"),
    "normalised_sharpness": ("lr · λ_max, sharpness times the learning rate that multiplies it", "1"),
    "observed_order": ("observed order in lr of the error, by least squares", "1"),
    "order_standard_error": ("standard error of the order", "1"),
    "oscillation_cosine": ("cosine of the angle between θ_k − θ̄_k and that of the step before", "1"),
    "oscillation_norm": ("distance of the run from its mean over three steps ‖θ_k − θ̄_k‖", "1"),
    "oscillates_from": (
        "first step past the edge at which the run has half of the mean predicted variance; −1: none",
        "",
    ),
    "other_engine": ("engine that the solution is checked by", ""),
    "other_method": ("method and version of that engine", ""),
    "outcome": ("how the observed order stands to theory's", ""),
    "parameter": ("name of a parameter in the model", ""),
    "parameter_lr": ("learning rate of a parameter's group, 0 where the optimiser has not got it", "1"),
    "predicted_variance": ("variance of the run about its time average, tr Σ, as the flow predicts it", "1"),
    "predicted_variance_along": ("the same as the flow predicts it: eigenvalues of Σ", "1"),
    "relative_defect": ("truncation of the flow's series over one step, over the update", "1"),
    "relative_error": ("distance to the run over its motion", "1"),
    "relative_error_standard_error": (
        "standard error of the relative distance, estimated from sketches",
        "1",
    ),
    "relative_error_to_average": ("distance to the run's own time average over the run's motion", "1"),
    "relative_error_to_average_standard_error": (
        "standard error of that ratio, estimated from sketches",
        "1",
    ),
    "rounding": ("error below which rounding of the run itself is seen", "1"),
    "run_to_average": ("distance of the run from its own time average ‖θ_k − θ̄_k‖", "1"),
    "saved_charge": ("charge Q at saved steps", "1"),
    "saved_step": ("optimiser step at which theta was kept", "step"),
    "saved_time": ("flow time of the saved step", "1"),
    "seen_step": ("step at which the measured oscillation reaches that size", "step"),
    "series_limit": (
        "series limit: lr · λ_max above which the modified flow's series does not converge",
        "1",
    ),
    "sgd_settings": ("momentum, dampening, weight decay and Nesterov's look-ahead of the step", "1"),
    "sharpest_gradient": ("size of the gradient along the sharpest direction", "1"),
    "sharpest_noise": (
        "standard deviation of what a step adds along the sharpest direction by rounding or by its batch",
        "1",
    ),
    "sharpest_oscillation": ("oscillation of the run along the sharpest direction, two steps before", "1"),
    "sharpness": ("sharpness λ_max, largest eigenvalue of the Hessian that the optimiser sees", "1"),
    "sketch_parts": ("parts of theta that have a sketch each: all of it, or its layers", "1"),
    "sketch_seed": ("seed of the projection that the sketches are by", "1"),
    "solver_error": ("solver's own error: distance to the solution at a tighter tolerance", "1"),
    "solver_error_ratio": ("solver's own error over the error", "1"),
    "solver_limited": ("solver's own error above a tenth of the error", ""),
    "stability_limit": ("stability limit: lr · λ_max above which the run is not stable", "1"),
    "start": ("parameters at the start", "1"),
    "start_share": ("share of the summed one-step defects in the first tenth of the run", "1"),
    "statistics_step": ("optimiser step at which the statistics were recorded", "step"),
    "statistics_time": ("flow time at which the statistics were recorded", "1"),
    "step": ("optimiser step", "step"),
    "summed_steps": ("steps since the last record of which the laws' sums are", "step"),
    "symmetry": ("symmetry", ""),
    "symmetry_at_rest": ("the charges do not move but by rounding: there is no relative error", ""),
    "symmetry_relative_error": ("distance to the recorded charges over their motion, of each symmetry", "1"),
    "theta": ("parameters", "1"),
    "theta_average": ("mean of the parameters over three steps (θ_{k−1} + 2θ_k + θ_{k+1})/4", "1"),
    "theta_gradient": ("⟨θ, ∇L⟩", "1"),
    "theta_norm": ("norm of the parameters ‖θ‖", "1"),
    "theta_sketch": ("sparse sign projection of the parameters", "1"),
    "theta_update": ("⟨θ, Δθ⟩ of the parameters before the update and the update", "1"),
    "time": ("flow time", "1"),
    "unexplained_residual": ("gradient constraint's residual without the ε's, relative", "1"),
    "update_norm": ("norm of the update ‖θ_{k+1} − θ_k‖", "1"),
    "variance_along": (
        "variance of the run about its own time average, along each of the flow's vectors",
        "1",
    ),
    "variance_correlation": (
        "Pearson's correlation of predicted and measured variance, once the run oscillates",
        "1",
    ),
    "variance_correlation_points": ("independent points on which the correlation rests", "1"),
    "within": ("matrix symmetry whose diagonal these charges are", ""),
}
"""Name → long name and units. docs/glossary.md has a line for each."""


def variable(name: str, *dims: str) -> Variable:
    """A variable of the schema with these dimensions.

    Raises:
        KeyError: there is none of this name.
    """
    long_name, units = DESCRIBED[name]
    return Variable(dims, long_name, units)


def long_name(series: xr.DataArray) -> str:
    """What a variable is, for a reader; its name where nobody says."""
    return str(series.attrs.get("long_name", series.name))


def annotate(dataset: xr.Dataset, declared: Mapping[str, Variable] | None = None) -> xr.Dataset:
    """The dataset with `long_name` and `units` on every variable and coordinate.

    Args:
        declared: variables beyond the schema; one with both attributes already needs no declaration.

    Raises:
        KeyError: a variable that nobody has described.
    """
    for name, found in dataset.variables.items():
        if declared is not None and name in declared:
            long_name, units = declared[str(name)].long_name, declared[str(name)].units
        elif name in DESCRIBED:
            long_name, units = DESCRIBED[str(name)]
        elif {"long_name", "units"} <= set(found.attrs):
            continue
        else:
            raise KeyError(f"variable {name!r} has no long_name and units: declare it")
        dataset[name].attrs.update(long_name=long_name, units=units)
    return dataset
