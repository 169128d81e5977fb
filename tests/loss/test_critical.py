"""The eigenpairs above a bound, against a dense factorisation: clustered, as at the edge of stability."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nm_ode.loss.critical import critical_space
from nm_ode.loss.operators import SymmetricOperator


class Dense(SymmetricOperator):
    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.products = matrix, 0

    @property
    def size(self) -> int:
        return len(self.matrix)

    @property
    def like(self) -> Tensor:
        return self.matrix[0]

    def matvec(self, v: Tensor) -> Tensor:
        self.products += 1
        return self.matrix @ v


def with_values(values: list[float], size: int, seed: int, rest: float = 1.0) -> Tensor:
    """These eigenvalues above, others in [−rest, rest] below."""
    drawn = np.random.default_rng(seed)
    turn = np.linalg.qr(drawn.standard_normal((size, size)))[0]
    every = np.concatenate([values, drawn.uniform(-rest, rest, size - len(values))])
    return torch.from_numpy(turn * every @ turn.T)


@settings(max_examples=12, deadline=None)
@given(
    values=st.lists(st.sampled_from([1.96, 1.99, 2.0, 2.0, 2.05, 2.5]), max_size=6),
    size=st.integers(6, 40),
    seed=st.integers(0, 10**6),
    known=st.booleans(),
)
def test_all_above_the_bound_are_found(values: list[float], size: int, seed: int, known: bool) -> None:
    operator = Dense(with_values(values, size, seed))
    vector = torch.from_numpy(np.random.default_rng(seed + 1).standard_normal(size))
    pairs = [(vector, operator.matrix @ vector)] if known else []
    found = critical_space(operator, 1.9, known=pairs, tol=1e-9)
    assert found.converged
    assert operator.products == found.products
    np.testing.assert_allclose(found.values, sorted(values, reverse=True), rtol=1e-12)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(len(values)).double())
    residual = found.vectors @ operator.matrix - found.values[:, None] * found.vectors
    assert float(residual.norm()) < 1e-8
    assert found.largest == pytest.approx(
        max([*values, float(torch.linalg.eigvalsh(operator.matrix)[-1])]), abs=5e-2
    )


def test_a_start_near_by_saves_products_and_sees_what_comes_up() -> None:
    first = with_values([2.0, 1.99, 1.8], 200, seed=0)
    cold = critical_space(Dense(first), 1.9)
    assert len(cold.values) == 2
    moved = with_values([0.0, 0.0, 0.12], 200, seed=0, rest=0.0)  # the same turn: the third comes up
    near = first + moved + with_values([], 200, seed=3, rest=1e-4)
    warm = critical_space(Dense(near), 1.9, start=cold.start)
    assert len(warm.values) == 3
    exact = torch.linalg.eigvalsh(near).flip(0)[:3]
    torch.testing.assert_close(warm.values, exact, rtol=1e-10, atol=0.0)
    assert warm.products < cold.products
    again = critical_space(Dense(near), 1.9)
    shared = warm.vectors.T @ warm.vectors - again.vectors.T @ again.vectors
    assert float(shared.norm()) < 1e-7


def test_what_comes_up_in_a_space_of_its_own_is_seen() -> None:
    """Eigenvectors stay as they are, so that of those which are followed no residual says anything of another."""
    values, start = torch.tensor([1.5, 1.4, 1.0, *[0.1] * 20], dtype=torch.float64), None
    for sharpest in (*np.linspace(0.1, 2.0, 100), *[2.0] * 10):
        values[3] = float(sharpest)
        found = critical_space(Dense(torch.diag(values)), 1.9, start=start)
        start = found.start
    torch.testing.assert_close(found.values, values[3:4], rtol=1e-10, atol=0.0)


def test_what_takes_too_many_products_is_said() -> None:
    found = critical_space(Dense(with_values([2.0] * 5, 200, seed=1)), 1.9, tol=1e-12, most=8)
    assert not found.converged
