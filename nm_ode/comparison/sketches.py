"""Distances between a run and a solution of which sketches were kept, not parameters."""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr

from nm_ode.comparison.alignment import AlignmentError
from nm_ode.comparison.ratio import ratio
from nm_ode.results import layout_of
from nm_ode.sketches import SparseSigns, standard_error


def with_one_sketch(run: xr.Dataset, solution: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both with `theta_sketch` by the same projection, where one of them has a sketch alone; else as they are.

    Of one that has theta the sketch is made here, if it has not the other's already.

    Raises:
        AlignmentError: sketches by different projections.
    """
    alone = [one for one in (run, solution) if "theta" not in one and "theta_sketch" in one]
    if not alone or not all("theta" in one or "theta_sketch" in one for one in (run, solution)):
        return run, solution
    m, seed = _kind(alone[0])
    for one in alone:
        if _kind(one) != (m, seed):
            other = "m = {}, seed = {}".format(*_kind(one))
            raise AlignmentError(
                f"the run has sketches with m = {m}, seed = {seed}, and the solution with {other}: give both the same "
                "Sketch"
            )
    return _with_sketch(run, m, seed), _with_sketch(solution, m, seed)


def sketch_errors(run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
    """`error`, `motion` and `relative_error` as estimates from the same sketch, each with its standard error."""
    discrete, continuous = run["theta_sketch"].values, solution["theta_sketch"].values
    share = standard_error(discrete.shape[1])
    error = np.linalg.norm(continuous - discrete, axis=1)
    moved = np.linalg.norm(discrete - discrete[:1], axis=1)
    estimates = {
        "error": (error, share),
        "motion": (moved, share),
        # At most: both estimates err in the same direction rather than in opposite ones.
        "relative_error": (ratio(error, moved), math.sqrt(2) * share),
    }
    found = xr.Dataset()
    for name, (values, uncertain) in estimates.items():
        found[name] = ("saved_step", values)
        found[f"{name}_standard_error"] = ("saved_step", values * uncertain)
    return found


def _kind(dataset: xr.Dataset) -> tuple[int, int]:
    """m and the seed."""
    return dataset["theta_sketch"].shape[1], int(dataset["sketch_seed"])


def _with_sketch(dataset: xr.Dataset, m: int, seed: int) -> xr.Dataset:
    if "theta_sketch" in dataset:
        if _kind(dataset) == (m, seed):
            return dataset
        dataset = dataset.drop_vars("theta_sketch")
    signs, thetas = SparseSigns(layout_of(dataset), m, seed), dataset["theta"]
    made = [signs.of(torch.from_numpy(theta)).numpy() for theta in thetas.values]
    return dataset.assign(theta_sketch=((thetas.dims[0], "sketch_index"), np.stack(made)))
