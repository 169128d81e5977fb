"""Two ensembles in distribution: means, covariances, energy distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from nm_ode.comparison.alignment import AlignmentError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """How far apart two ensembles are, each figure with what two draws of one ensemble would show.

    Attributes:
        mean: distance of the means, over the spread (root of the trace of the pooled covariance).
        mean_noise: what sampling alone makes of it, in expectation.
        covariance: Frobenius distance of the covariances in the leading directions, over the pooled one's norm.
        covariance_noise: the same between two random halves of the pooled ensemble, scaled to full size.
        energy: energy distance 2E|X−Y| − E|X−X'| − E|Y−Y'|, over E|X−Y| (Székely, Rizzo 2013).
        p_value: share of random divisions of the pooled ensemble whose energy distance is as large.
    """

    mean: float
    mean_noise: float
    covariance: float
    covariance_noise: float
    energy: float
    p_value: float


def compare_ensembles(
    one: xr.Dataset, other: xr.Dataset, *, directions: int = 10, permutations: int = 200, seed: int = 0
) -> Difference:
    """Difference of two ensembles' `theta` (member, param).

    Args:
        directions: principal directions of the pooled ensemble in which covariances are compared.
        permutations: random divisions for the p-value.

    Raises:
        AlignmentError: other parameters, or fewer than four members in either.
    """
    if one.attrs["layout"] != other.attrs["layout"]:
        raise AlignmentError("the ensembles are of different models: their layouts differ")
    x, y = one["theta"].values.astype(np.float64), other["theta"].values.astype(np.float64)
    if min(len(x), len(y)) < 4:
        raise AlignmentError("an ensemble needs at least four members to be compared")
    pooled = np.concatenate([x - x.mean(axis=0), y - y.mean(axis=0)])
    spread = float(np.sqrt(np.square(pooled).sum() / (len(pooled) - 2)))
    generator = np.random.default_rng(seed)
    basis = np.linalg.svd(pooled, full_matrices=False)[2][:directions].T
    size = float(np.linalg.norm(np.cov((pooled @ basis).T)))

    def covariances_apart(a: Array, b: Array) -> float:
        return float(np.linalg.norm(np.cov((a @ basis).T) - np.cov((b @ basis).T))) / size

    halves = [np.array_split(generator.permutation(pooled), [len(x)]) for _ in range(20)]
    distances = cdist(np.concatenate([x, y]), np.concatenate([x, y]))
    first = np.arange(len(x) + len(y)) < len(x)
    energy = _energy(distances, first)
    as_large = [_energy(distances, generator.permutation(first)) >= energy for _ in range(permutations)]
    return Difference(
        mean=float(np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))) / spread,
        mean_noise=float(np.sqrt(1 / len(x) + 1 / len(y))),
        covariance=covariances_apart(x, y),
        covariance_noise=float(np.mean([covariances_apart(a, b) for a, b in halves])),
        energy=energy / float(distances[np.ix_(first, ~first)].mean()),
        p_value=(1 + sum(as_large)) / (1 + permutations),
    )


def _energy(distances: Array, first: NDArray[np.bool_]) -> float:
    def mean(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
        return float(distances[np.ix_(a, b)].mean())

    return 2 * mean(first, ~first) - mean(first, first) - mean(~first, ~first)
