"""Ensembles whose difference is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import cdist

from nm_ode.comparison import AlignmentError, compare_ensembles
from nm_ode.parameters import Layout, Slot
from nm_ode.results import EnsembleInfo, write


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(5)


def ensemble(theta: np.ndarray, name: str = "weight") -> xr.Dataset:
    layout = Layout((Slot(name, (theta.shape[1],), 0),))
    info = EnsembleInfo(title="runs", members=len(theta), seed=0, time=1.0, layout=layout)
    return write(xr.Dataset({"theta": (("member", "param"), theta)}), info)


def energy(x: np.ndarray, y: np.ndarray) -> float:
    return float(2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean())


def test_draws_of_one_distribution_do_not_differ(generator) -> None:
    found = compare_ensembles(*(ensemble(generator.normal(size=(60, 5))) for _ in range(2)))
    assert found.p_value > 0.05
    assert found.mean < 3 * found.mean_noise
    assert found.covariance < 2 * found.covariance_noise


def test_a_shift_and_a_wider_spread_are_seen(generator) -> None:
    x, y = generator.normal(size=(2, 60, 5))
    shifted = compare_ensembles(ensemble(x), ensemble(y + 1.0))
    assert shifted.p_value < 0.01
    assert shifted.mean == pytest.approx(1.0, rel=0.2)  # √5 over the spread √5
    wider = compare_ensembles(ensemble(x), ensemble(3 * y))
    assert wider.p_value < 0.01
    assert wider.covariance > 3 * wider.covariance_noise


def test_the_energy_distance_is_its_definition(generator) -> None:
    x, y = generator.normal(size=(30, 5)), generator.normal(size=(20, 5)) + 0.3
    found = compare_ensembles(ensemble(x), ensemble(y))
    assert found.energy == pytest.approx(energy(x, y) / cdist(x, y).mean())


def test_the_p_value_of_small_ensembles_is_exact(generator) -> None:
    """Over all 70 divisions of eight members."""
    x, y = generator.normal(size=(4, 2)), generator.normal(size=(4, 2)) + 0.7
    pooled, everyone = np.concatenate([x, y]), set(range(8))
    all_of_them = [
        energy(pooled[list(one)], pooled[sorted(everyone - set(one))])
        for one in itertools.combinations(range(8), 4)
    ]
    exact = np.mean(np.array(all_of_them) >= energy(x, y) * (1 - 1e-12))
    assert compare_ensembles(ensemble(x), ensemble(y)).p_value == pytest.approx(exact)


def test_a_seed_fixes_it(generator) -> None:
    pair = [ensemble(part) for part in generator.normal(size=(2, 30, 3))]
    assert compare_ensembles(*pair, seed=3) == compare_ensembles(*pair, seed=3)


def test_other_models_and_too_few_members_are_refused(generator) -> None:
    one = ensemble(generator.normal(size=(10, 3)))
    with pytest.raises(AlignmentError, match="different models"):
        compare_ensembles(one, ensemble(generator.normal(size=(10, 3)), "other"))
    with pytest.raises(AlignmentError, match="at least four members"):
        compare_ensembles(one, one.isel(member=slice(3)))
