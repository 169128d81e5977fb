"""From one theta to the next: the eigenvectors are sought where they will be, which takes fewer products."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import expm
from torch import Tensor

from nm_ode import Problem
from nm_ode.flows.central.search import Search
from nm_ode.loss.critical import critical_space
from tests.loss.test_critical import Dense, with_values


def turning(size: int) -> list[Tensor]:
    """Matrices with the same eigenvalues, three of them above 1.9, whose eigenvectors turn evenly."""
    start = with_values([1.97, 2.0, 2.03], size, seed=1, rest=1.5).numpy()
    skew = np.random.default_rng(2).standard_normal((size, size))
    turn = expm(0.004 * (skew - skew.T))
    found = [start]
    for _ in range(12):
        found.append(turn @ found[-1] @ turn.T)
    return [torch.from_numpy(one) for one in found]


def test_it_foresees_where_the_eigenvectors_turn(tiny: Problem) -> None:
    size, tol = 60, 1e-7
    along = torch.linspace(0.5, 1.0, size, dtype=torch.float64)
    search, start, plain, foreseen = Search(tiny, "exact", tol), None, 0, 0
    for step, matrix in enumerate(turning(size)):
        found = search.space(step * along, Dense(matrix), 1.9, [])
        np.testing.assert_allclose(found.values, [2.03, 2.0, 1.97], rtol=1e-10)
        other = critical_space(Dense(matrix), 1.9, start=start, tol=tol)
        start = other.start
        if step > 1:
            plain, foreseen = plain + other.products, foreseen + found.products
    assert foreseen < 0.85 * plain


def test_a_place_that_is_seen_again_and_one_far_away_take_what_is_there(tiny: Problem) -> None:
    size, matrices = 60, turning(60)
    along = torch.linspace(0.5, 1.0, size, dtype=torch.float64)
    search = Search(tiny, "exact", 1e-7)
    for place, matrix in ((0, 0), (1, 1), (1, 1), (0, 0), (300, 9)):
        found = search.space(place * along, Dense(matrices[matrix]), 1.9, [])
        assert found.converged
        np.testing.assert_allclose(found.values, [2.03, 2.0, 1.97], rtol=1e-10)
