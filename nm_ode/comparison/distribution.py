"""Two ensembles in distribution: means, covariances, energy distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from nm_ode.comparison.alignment import AlignmentError
from nm_ode.results import EnsembleInfo, ensemble_info, layout_of

Array = NDArray[np.float64]

_BATCH = 1000  # divisions at a time


@dataclass(frozen=True)
class Difference:
    """How far apart two ensembles are, each figure with what two draws of one ensemble would show.

    Attributes:
        mean: distance of the means, over the spread (root of the trace of the pooled covariance).
        mean_noise: what sampling alone makes of it, in expectation.
        covariance: Frobenius distance of the covariances in the leading directions, over the pooled one's norm.
        covariance_noise: the same between two random halves of the pooled ensemble, scaled to full size.
        energy: energy distance 2E|X−Y| − E|X−X'| − E|Y−Y'|, over E|X−Y| (Székely, Rizzo 2013).
        p_value: share of the divisions of the pooled ensemble whose energy distance is as large: of all if there are no
            more than `permutations`, else of so many random ones.
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
    """Difference of two ensembles' `theta` (member, param), in distribution (docs/theory.md §4.8 (iii)).

    Args:
        one, other: of `sgd_ensemble` or `solve_ensemble`.
        directions: principal directions of the pooled ensemble in which covariances are compared.
        permutations: at most so many divisions for the p-value.
        seed: of random divisions.

    Returns:
        A `Difference`: of means, of covariances, the energy distance, each beside sampling noise, and its `p_value`.

    Raises:
        AlignmentError: no ensembles; other parameters, another time or start; paths whose lr or batch size is not the
            runs'; fewer than four members in either, members that diverged, or none that differ.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.05)
        >>> one, other = (nm_ode.sgd_ensemble(problem, sgd, 20, batch_size=16, members=16, seed=i) for i in (1, 2))
        >>> difference = nm_ode.compare_ensembles(one, other)
        >>> difference.mean < 2 * difference.mean_noise, difference.p_value > 0.05
        (True, True)
    """
    from scipy.stats import permutation_test  # a fifth of the time that the command takes to start

    _require_alike(one, other)
    x, y = one["theta"].values.astype(np.float64), other["theta"].values.astype(np.float64)
    if min(len(x), len(y)) < 4:
        raise AlignmentError("an ensemble needs at least four members to be compared")
    for name, members in (("first", x), ("second", y)):
        if diverged := int((~np.isfinite(members).all(axis=1)).sum()):
            raise AlignmentError(
                f"{diverged} of {len(members)} members of the {name} ensemble diverged: choose a smaller learning rate"
            )
    pooled = np.concatenate([x - x.mean(axis=0), y - y.mean(axis=0)])
    if not pooled.any():
        raise AlignmentError("the members of neither ensemble differ: there is no distribution to compare")
    spread = float(np.sqrt(np.square(pooled).sum() / (len(pooled) - 2)))
    generator = np.random.default_rng(seed)
    basis = np.linalg.svd(pooled, full_matrices=False)[2][:directions].T
    size = float(np.linalg.norm(np.cov((pooled @ basis).T)))

    def covariances_apart(a: Array, b: Array) -> float:
        return float(np.linalg.norm(np.cov((a @ basis).T) - np.cov((b @ basis).T))) / size

    halves = [np.array_split(generator.permutation(pooled), [len(x)]) for _ in range(20)]
    energy = _EnergyDistance.between(x, y)
    tested = permutation_test(
        energy.members,
        energy,
        vectorized=True,
        n_resamples=permutations,
        batch=_BATCH,
        alternative="greater",
        random_state=generator,
    )
    return Difference(
        mean=float(np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))) / spread,
        mean_noise=float(np.sqrt(1 / len(x) + 1 / len(y))),
        covariance=covariances_apart(x, y),
        covariance_noise=float(np.mean([covariances_apart(a, b) for a, b in halves])),
        energy=float(tested.statistic) / energy.mean_across,
        p_value=float(tested.pvalue),
    )


def _require_alike(one: xr.Dataset, other: xr.Dataset) -> None:
    """What two ensembles must have in common for a difference to be one of their distributions."""
    for dataset in (one, other):
        if "theta" not in dataset or dataset["theta"].dims != ("member", "param"):
            raise AlignmentError(
                "an ensemble has 'theta' with dimensions member and param, as sgd_ensemble and solve_ensemble give it; "
                f"one with {', '.join(map(str, dataset.dims)) or 'no dimensions'} was given"
            )
    if layout_of(one) != layout_of(other):
        raise AlignmentError("the ensembles are of different models: their layouts differ")
    first, second = ensemble_info(one), ensemble_info(other)
    if not np.isclose(first.time, second.time, rtol=1e-6, atol=0):
        raise AlignmentError(
            f"the ensembles end at different times, {first.time:g} and {second.time:g}: solve the paths to "
            "ensemble_info(runs).time"
        )
    if "start" in one and "start" in other:
        a, b = one["start"].values, other["start"].values
        if not np.allclose(a, b, rtol=1e-5, atol=1e-7 * float(np.abs(a).max())):
            raise AlignmentError("the ensembles start at different theta: give both the same theta0")
    for runs, paths in ((first, second), (second, first)):
        if runs.flow is None and paths.flow is not None:
            _require_noise_of(runs, paths)


def _require_noise_of(runs: EnsembleInfo, paths: EnsembleInfo) -> None:
    if runs.lr is not None and paths.lr is not None and not np.isclose(runs.lr, paths.lr, rtol=1e-9, atol=0):
        raise AlignmentError(f"the paths are of lr = {paths.lr:g} and the runs of lr = {runs.lr:g}")
    if None not in (runs.batch_size, paths.noise_batch_size) and runs.batch_size != paths.noise_batch_size:
        raise AlignmentError(
            f"the paths' noise is that of batches of {paths.noise_batch_size}, and the runs have batches of "
            f"{runs.batch_size}"
        )


@dataclass(frozen=True)
class _EnergyDistance:
    """Of divisions of a pooled ensemble, given by their members' places in it.

    Attributes:
        distances: shape (n, n), between all members.
        members: places of the two ensembles.
    """

    distances: Array
    members: tuple[NDArray[np.intp], NDArray[np.intp]]

    @classmethod
    def between(cls, x: Array, y: Array) -> _EnergyDistance:
        pooled, places = np.concatenate([x, y]), np.arange(len(x) + len(y))
        return cls(cdist(pooled, pooled), (places[: len(x)], places[len(x) :]))

    @property
    def mean_across(self) -> float:
        """E|X−Y|."""
        return float(self.distances[np.ix_(*self.members)].mean())

    def __call__(self, one: NDArray[np.intp], other: NDArray[np.intp], axis: int = -1) -> Array:
        """Of many divisions at once, along leading dimensions: products with their members' weights."""
        size = one.shape[-1]
        a = np.zeros((*one.shape[:-1], len(self.distances)))
        np.put_along_axis(a, one, 1 / size, axis=-1)
        b = (a == 0) / (len(self.distances) - size)
        to_a, to_b = a @ self.distances, b @ self.distances
        return np.asarray(2 * (to_a * b).sum(-1) - (to_a * a).sum(-1) - (to_b * b).sum(-1))
