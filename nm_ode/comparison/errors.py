"""compare: a run and a flow's solution, step by step and layer by layer (docs/theory.md §5)."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from nm_ode.comparison.alignment import AlignmentError, places_of
from nm_ode.comparison.average_errors import NoAverageError, average_errors, predicts_variance
from nm_ode.comparison.charges import charge_errors
from nm_ode.comparison.defects import defects, holds_from
from nm_ode.comparison.given import as_window, require_run_and_solution
from nm_ode.comparison.ratio import ratio
from nm_ode.comparison.sketches import sketch_errors, with_one_sketch
from nm_ode.comparison.starts import require_same_charges, require_same_start
from nm_ode.comparison.windows import THREE_STEPS, Window
from nm_ode.results import ComparisonInfo, annotate, law_info, run_info, solve_info, write

SOLVER_LIMIT = 0.1  # of the discretisation error, above which the result is flagged as solver-limited


def compare(run: xr.Dataset, solution: xr.Dataset, *, average: Window | bool | None = None) -> xr.Dataset:
    """How far a flow, or a law of the charges, is from a discrete run (docs/theory.md §5).

    Args:
        run: from `train`.
        solution: from `solve(flow, t=run)`, with theta or charges recorded (one that stopped early is compared as
            far as it goes); or from `predict_charges` or `solve_charges`.
        average: compare with the run's own time average too: over three steps if True, or over a
            `nm_ode.gaussian_window(width)`. None: of a central flow, which is one of that average; where the run has
            none, `comparison_info` says in `no_average` what to set.

    Returns:
        Dimensions `saved_step` (with coordinate `saved_time`; of a law `step` or `charge_step`, those that the run's
        charges have), `layer`, `charge_index`, `symmetry`. With theta: `error` e_k = ‖θ(t_k) − θ_k‖, `motion`
        ‖θ_k − θ_0‖, `relative_error` (their ratio; NaN where nothing has moved), the same by layer, `loss_gap`
        L(θ(t_k)) − L(θ_k) if the solution has losses, and, if it was checked, `solver_error`, `solver_error_ratio` and
        the flag `solver_limited`; of a modified flow in iterated-map form also what `defects` says, if every step's
        theta was kept. With a `Sketch` in place of theta these are estimates, each with its standard error
        (`error_standard_error`, …), those by layer from a sketch by layer. With the run's average what
        `average_errors` says. With charges what `charge_errors` says. What
        it is a comparison of is its `nm_ode.results.ComparisonInfo`.

    Raises:
        AlignmentError: other times, other parameters, another start, learning rate or loss, other symmetries,
            neither theta nor charges in both, or no time average where one was asked for.
        ArgumentError: no datasets, the run and the solution the wrong way round, or an average that is none.
        ResultError: datasets that are no run, or neither a solution nor a law's prediction.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=10)
        >>> comparison = nm_ode.compare(run, nm_ode.solve(nm_ode.GradientFlow(problem), t=run))
        >>> comparison.error.dims, round(float(comparison.relative_error[-1]), 3)
        (('saved_step',), 0.031)
    """
    require_run_and_solution(run, solution)
    window = as_window(average)
    if "time" in solution.dims:
        return _compare_flow(run, solution, window)
    return _compare_law(run, solution)


def _compare_flow(run: xr.Dataset, solution: xr.Dataset, window: Window | bool | None) -> xr.Dataset:
    places, about = places_of(solution, run), solve_info(solution)
    saved, solution = with_one_sketch(run.isel(saved_step=places), solution)
    require_same_start(saved, solution, run_info(run), about)
    found: list[xr.Dataset] = []
    holds = None
    if "theta" in solution and "theta" in run:
        found.append(_theta_errors(saved, solution))
        along = defects(run, about.map_order) if about.map_order is not None else None
        if along is not None:
            found.append(along)
            holds = holds_from(along)
    elif "theta_sketch" in solution and "theta_sketch" in saved:
        found.append(_with_gaps(sketch_errors(saved, solution), saved, solution))
    averaged, no_average = _averaged(run, solution, places, window) if found else (None, "")
    if averaged is not None:
        found.append(averaged)
    if "charge" in solution.data_vars and "saved_charge" in run:
        found.append(charge_errors(saved, saved["saved_charge"], solution["charge"]))
    if not found:
        raise _nothing_in_both("solution" if "theta" not in solution else "run")
    result = xr.merge(found).assign_coords(
        saved_step=saved["saved_step"].values, saved_time=("saved_step", saved["saved_time"].values)
    )
    info = ComparisonInfo(
        title=about.title,
        flow=about.flow,
        expected_order=about.expected_order,
        holds_from=holds,
        average=None if averaged is None else _window(window).title,
        no_average=no_average,
    )
    return annotate(write(result, info))


def _averaged(
    run: xr.Dataset, solution: xr.Dataset, places: NDArray[np.intp], window: Window | bool | None
) -> tuple[xr.Dataset | None, str]:
    """Errors to the run's time average, or why there are none; neither where nobody asks for them."""
    if window is False or (window is None and not predicts_variance(solution)):
        return None, ""
    try:
        return average_errors(run, solution, places, _window(window)), ""
    except NoAverageError as error:
        if window is not None:
            raise AlignmentError(str(error)) from None
        return None, str(error)


def _window(asked: Window | bool | None) -> Window:
    return asked if isinstance(asked, Window) else THREE_STEPS


def _compare_law(run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
    if "charge" not in solution.data_vars:
        raise _nothing_in_both("solution")
    if "charge" not in run.data_vars or _steps(run) != _steps(solution):
        raise AlignmentError("the predicted charges are of another run")
    require_same_charges(run, solution)
    about = law_info(solution)
    along, _ = _steps(run)
    time = "time" if along == "step" else f"{along.removesuffix('_step')}_time"
    result = charge_errors(run, run["charge"], solution["charge"]).assign_coords(
        {name: run[name].variable for name in (along, time)}
    )
    return annotate(write(result, ComparisonInfo(title=about.title, law=about.law)))


def _steps(charges: xr.Dataset) -> tuple[str, int]:
    """Along which dimension the charges lie, and how many there are."""
    found = charges["charge"]
    return str(found.dims[0]), len(found)


def _nothing_in_both(lacking: str) -> AlignmentError:
    return AlignmentError(
        f"the {lacking} has no 'theta': record it to compare, or give run and solution the same symmetries"
    )


def _theta_errors(run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
    discrete, continuous = run["theta"].values, solution["theta"].values
    layout = run_info(run).layout
    difference, motion = continuous - discrete, discrete - discrete[:1]
    error, moved = np.linalg.norm(difference, axis=1), np.linalg.norm(motion, axis=1)
    layer_error, layer_moved = (
        layout.layer_norms(torch.from_numpy(part)).numpy() for part in (difference, motion)
    )
    result = xr.Dataset(
        {
            "error": ("saved_step", error),
            "motion": ("saved_step", moved),
            "relative_error": ("saved_step", ratio(error, moved)),
            "layer_error": (("saved_step", "layer"), layer_error),
            "layer_relative_error": (("saved_step", "layer"), ratio(layer_error, layer_moved)),
        },
        coords={"layer": run["layer"].values},
    )
    return _with_gaps(result, run, solution)


def _with_gaps(result: xr.Dataset, run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
    """With the gap of the losses and the solver's own error, where there are."""
    error = result["error"].values
    if "loss" in solution and "full_loss" in run:
        result["loss_gap"] = ("saved_step", solution["loss"].values - run["full_loss"].values)
    if "solver_error" in solution:
        solver_error = solution["solver_error"].values
        share = ratio(solver_error, error)
        result["solver_error"] = ("saved_step", solver_error)
        result["solver_error_ratio"] = ("saved_step", share)
        # A check that did not finish says nothing good: NaN counts as limited, but for the start.
        result["solver_limited"] = ("saved_step", ~(share <= SOLVER_LIMIT) & (error > 0))
    return result
