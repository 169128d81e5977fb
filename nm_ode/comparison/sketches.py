"""Distances between a run and a solution of which sketches were kept, not parameters."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

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
    kinds = {_Kind.of(one): one for one in alone}
    if len(kinds) > 1:
        of_run, of_solution = (_Kind.of(one) for one in (run, solution))
        raise AlignmentError(
            f"the run has sketches with {of_run}, and the solution with {of_solution}: give both the same Sketch"
        )
    (kind,) = kinds
    return kind.given_to(run), kind.given_to(solution)


def sketched_as(dataset: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """The dataset with a sketch of its theta by the projection of another's."""
    return _Kind.of(other).given_to(dataset)


def sketch_standard_error(dataset: xr.Dataset) -> float:
    """Of a norm that is estimated from its sketches, over the norm."""
    return standard_error(_Kind.of(dataset).m)


def sketch_errors(run: xr.Dataset, solution: xr.Dataset) -> xr.Dataset:
    """`error`, `motion` and `relative_error` as estimates from the same sketch, each with its standard error.

    From sketches of each layer `layer_error` and `layer_relative_error` too.
    """
    kind = _Kind.of(run)
    share = standard_error(kind.m)
    discrete, continuous = (kind.by_part(one) for one in (run, solution))
    errors = np.linalg.norm(continuous - discrete, axis=2)
    motions = np.linalg.norm(discrete - discrete[:1], axis=2)
    error, motion = np.linalg.norm(errors, axis=1), np.linalg.norm(motions, axis=1)
    along: tuple[str, ...] = ("saved_step",)
    # Of a ratio at most: both estimates err in the same direction rather than in opposite ones.
    estimates = {
        "error": (along, error, share),
        "motion": (along, motion, share),
        "relative_error": (along, ratio(error, motion), math.sqrt(2) * share),
    }
    if kind.parts > 1:
        along = ("saved_step", "layer")
        estimates["layer_error"] = (along, errors, share)
        estimates["layer_relative_error"] = (along, ratio(errors, motions), math.sqrt(2) * share)
    found = xr.Dataset(coords={"layer": run["layer"].values} if kind.parts > 1 else {})
    for name, (dims, values, uncertain) in estimates.items():
        found[name] = (dims, values)
        found[f"{name}_standard_error"] = (dims, values * uncertain)
    return found


class _Kind(NamedTuple):
    """Which projection a sketch is by, beside the layout."""

    m: int
    seed: int
    parts: int

    @classmethod
    def of(cls, dataset: xr.Dataset) -> _Kind:
        parts = int(dataset["sketch_parts"])
        return cls(dataset["theta_sketch"].shape[1] // parts, int(dataset["sketch_seed"]), parts)

    def __str__(self) -> str:
        return f"m = {self.m}, seed = {self.seed}" + (", by layer" if self.parts > 1 else "")

    def given_to(self, dataset: xr.Dataset) -> xr.Dataset:
        """The dataset with such a sketch, made of its theta if it has another or none."""
        if "theta_sketch" in dataset:
            if _Kind.of(dataset) == self:
                return dataset
            dataset = dataset.drop_vars("theta_sketch")
        signs = SparseSigns(layout_of(dataset), self.m, self.seed, by_layer=self.parts > 1)
        made = [signs.of(torch.from_numpy(theta)).numpy() for theta in dataset["theta"].values]
        return dataset.assign(
            theta_sketch=((dataset["theta"].dims[0], "sketch_index"), np.stack(made)),
            sketch_seed=self.seed,
            sketch_parts=self.parts,
        )

    def by_part(self, dataset: xr.Dataset) -> NDArray[np.float64]:
        """Shape (saved steps or times, parts, m)."""
        return np.asarray(dataset["theta_sketch"].values).reshape(-1, self.parts, self.m)
