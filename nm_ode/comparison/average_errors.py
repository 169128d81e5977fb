"""A flow held against the run's own time average, and what a central flow predicts against what is measured."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from nm_ode.comparison.averages import NoAverageError, RunAverage, run_average
from nm_ode.comparison.correlation import correlation
from nm_ode.comparison.ratio import ratio
from nm_ode.comparison.sketches import sketch_standard_error, sketched_as, with_one_sketch
from nm_ode.comparison.windows import Array, Window

PREDICTED_VARIANCE = "oscillation_trace"
"""tr Σ, which a central flow alone records."""

_VECTORS, _ALONG = "oscillation_vector", {"theta": "param", "theta_sketch": "sketch_index"}


def predicts_variance(solution: xr.Dataset) -> bool:
    """Is it a central flow's?"""
    return PREDICTED_VARIANCE in solution.data_vars


def average_errors(run: xr.Dataset, solution: xr.Dataset, places: np.ndarray, window: Window) -> xr.Dataset:
    """Distances to the run's time average, and of a central flow the numbers that it predicts beside those of the run.

    Args:
        run: with all its saved steps.
        solution: with theta, or a sketch of it.
        places: of the solution's times among the run's saved steps.

    Returns:
        Along `saved_step`: `error_to_average` ‖θ(t_k) − θ̄_k‖, `relative_error_to_average` (over the run's motion, as
        `relative_error` is), `run_to_average` ‖θ_k − θ̄_k‖, `measured_variance`; where all samples took part in every
        step, `averaged_loss` and `averaged_grad_norm`, with `averaged_loss_gap` and `averaged_grad_norm_gap` of what
        the flow has in their place; where distances are estimated from sketches, their standard errors. Of a central
        flow `predicted_variance`; `oscillates_from`, the first step past the edge at which the run alternates with
        half of the mean variance that is predicted, −1 if there is none; from there on `variance_correlation` of
        predicted and measured variance, with `variance_correlation_points`; along `critical` `variance_along` its own
        vectors and `predicted_variance_along`. NaN where the window does not fit.

    Raises:
        NoAverageError: the run's time average is not known.
    """
    average, saved, solution = _average_of(run, solution, places, window)
    steps = saved["saved_step"].values.astype(int)
    rows = average.rows[places]
    found = _distances(average, steps, rows, saved, solution)
    _add_gap(found, "averaged_loss", average.at(average.loss, steps), solution, ("predicted_loss", "loss"))
    norms = average.at(average.grad_norm, steps)
    _add_gap(found, "averaged_grad_norm", norms, solution, ("predicted_grad_norm", "grad_norm"))
    if predicts_variance(solution):
        _add_variances(found, average, steps, solution)
    return found


def _average_of(
    run: xr.Dataset, solution: xr.Dataset, places: np.ndarray, window: Window
) -> tuple[RunAverage, xr.Dataset, xr.Dataset]:
    """The average of what both have, and both with it."""
    if "theta" in solution and "theta" in run:
        return run_average(run, window), run.isel(saved_step=places), solution
    if "theta_sketch" in solution and "theta_average" in run and "theta_sketch" in run:
        return _sketched_average(run, solution, places, window)
    run, solution = with_one_sketch(run, solution)
    return run_average(run, window, "theta_sketch"), run.isel(saved_step=places), solution


def _sketched_average(
    run: xr.Dataset, solution: xr.Dataset, places: np.ndarray, window: Window
) -> tuple[RunAverage, xr.Dataset, xr.Dataset]:
    """Of an average that was kept whole beside sketches of theta: its sketch, for a sketch is linear."""
    steps = run["saved_step"].values
    if len(steps) > 1 and bool((np.diff(steps) == 1).all()):
        return run_average(run, window, "theta_sketch"), run.isel(saved_step=places), solution
    average = run_average(run, window)
    whole = run.drop_vars(["theta_sketch", "theta"], errors="ignore").rename(theta_average="theta")
    rows = sketched_as(whole, run)["theta_sketch"].values
    kept = {
        name: getattr(average, name)
        for name in ("first", "distance", "cosine", "variance", "loss", "grad_norm")
    }
    return (
        RunAverage(window, "theta_sketch", rows, each=None, **kept),
        run.isel(saved_step=places),
        solution,
    )


def _distances(
    average: RunAverage, steps: np.ndarray, rows: Array, saved: xr.Dataset, solution: xr.Dataset
) -> xr.Dataset:
    discrete = saved[average.of].values
    motion = np.linalg.norm(discrete - discrete[:1], axis=1)
    error = np.linalg.norm(solution[average.of].values - rows, axis=1)
    relative = ratio(error, motion)
    found = xr.Dataset(
        {
            "error_to_average": ("saved_step", error),
            "relative_error_to_average": ("saved_step", relative),
            "run_to_average": ("saved_step", average.at(average.distance, steps)),
            "measured_variance": ("saved_step", average.at(average.variance, steps)),
        }
    )
    if average.of == "theta_sketch":
        share = sketch_standard_error(saved)
        found["error_to_average_standard_error"] = ("saved_step", share * error)
        found["relative_error_to_average_standard_error"] = ("saved_step", math.sqrt(2) * share * relative)
    return found


def _add_gap(
    found: xr.Dataset, name: str, averaged: Array, solution: xr.Dataset, names: tuple[str, ...]
) -> None:
    """The run's averaged number, and how much the flow's is above it: the predicted one if there is one."""
    if np.isnan(averaged).all():
        return
    found[name] = ("saved_step", averaged)
    own = next((solution[one].values for one in names if one in solution), None)
    if own is not None:
        found[f"{name}_gap"] = ("saved_step", own - averaged)


def _add_variances(found: xr.Dataset, average: RunAverage, steps: np.ndarray, solution: xr.Dataset) -> None:
    predicted = solution[PREDICTED_VARIANCE].values
    found["predicted_variance"] = ("saved_step", predicted)
    measured = found["measured_variance"].values
    # Before, the oscillation grows from rounding, whatever the flow predicts. Against the mean: a flow may let its own
    # oscillation grow from there too, and both are small then. A path that bends does not change its side.
    past = predicted > 0
    least = predicted[past].mean() / 2 if past.any() else np.inf
    there = np.flatnonzero(past & (measured >= least) & (average.at(average.cosine, steps) < 0))
    found["oscillates_from"] = ((), int(steps[there[0]]) if there.size else -1)
    seen = slice(int(there[0]) if there.size else len(predicted), None)
    together = correlation(predicted[seen], measured[seen])
    found["variance_correlation"] = ((), together.value)
    found["variance_correlation_points"] = ((), together.independent)
    if average.each is None or _VECTORS not in solution or solution[_VECTORS].dims[-1] != _ALONG[average.of]:
        return
    vectors = solution[_VECTORS]
    variances, lengths = np.full((2, *vectors.shape[:2]), np.nan)
    for sample, (step, rows) in enumerate(zip(steps, vectors.values, strict=True)):
        lengths[sample] = np.linalg.norm(rows, axis=1)
        there = np.flatnonzero(lengths[sample] > 0)  # a NaN beyond the vectors that there are is none
        directions = rows[there] / lengths[sample, there, None]
        variances[sample, there] = average.along(step, directions)
    dims = ("saved_step", str(vectors.dims[1]))
    found["variance_along"] = (dims, variances)
    found["predicted_variance_along"] = (dims, lengths**2)
    if dims[1] in solution.coords:
        found.coords[dims[1]] = solution[dims[1]].variable


__all__ = ["PREDICTED_VARIANCE", "NoAverageError", "average_errors", "predicts_variance"]
