"""Eigenpairs, spectral densities and traces of matrices that are written down."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nm_ode.loss.eigenpairs import largest_eigenpairs
from nm_ode.loss.operators import SymmetricOperator
from nm_ode.loss.spectral import quadratures, smoothed, trace
from nm_ode.loss.spectrum import largest


class Dense(SymmetricOperator):
    """A matrix as an operator; counts its products."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.count = matrix, 0

    @property
    def size(self) -> int:
        return len(self.matrix)

    @property
    def like(self) -> torch.Tensor:
        return self.matrix[0]

    def matvec(self, v: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.matrix @ v


def with_eigenvalues(values, seed: int = 0, dtype=torch.float64) -> tuple[Dense, torch.Tensor]:
    """And the eigenvectors, as rows."""
    values = torch.as_tensor(values, dtype=torch.float64)
    source = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=source))
    return Dense(((q * values) @ q.T).to(dtype)), q.T


def bulk(n: int, largest) -> torch.Tensor:
    """n eigenvalues: those given, and the rest between −0.5 and 1."""
    rest = torch.linspace(-0.5, 1, n - len(largest), dtype=torch.float64)
    return torch.cat([torch.as_tensor(largest, dtype=torch.float64), rest])


def test_the_largest_where_there_is_no_curvature() -> None:
    """Also where there is none along the vector to start from: ARPACK takes neither."""
    nothing, start = Dense(torch.zeros(3, 3, dtype=torch.float64)), np.array([0.0, 1.0, 0.0])
    for v0, products in ((None, 1), (start, 2)):
        found = largest(nothing, v0)
        assert (found.value, found.hvp_evaluations) == (0.0, products)
        assert np.linalg.norm(found.vector) == pytest.approx(1)
    found = largest(Dense(torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64).diag()), start)
    assert found.value == pytest.approx(2)
    assert abs(found.vector[0]) == pytest.approx(1)


@given(
    st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 1.0 + 1e-9, 2.0, 7.0]), min_size=1, max_size=40),
    st.integers(1, 8),
    st.integers(0, 10),
)
@settings(max_examples=60, deadline=None)
def test_the_largest_eigenvalues_of_any_matrix_multiple_ones_too(values, count: int, seed: int) -> None:
    operator, _ = with_eigenvalues(values, seed)
    found = largest_eigenpairs(operator, count, tol=1e-8, seed=seed)
    expected = torch.tensor(sorted(values, reverse=True)[:count], dtype=torch.float64)
    assert found.converged
    assert found.products == operator.count
    torch.testing.assert_close(found.values, expected, rtol=1e-7, atol=1e-7 * max(map(abs, values)) + 1e-12)
    k = len(expected)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(k).double(), rtol=0, atol=1e-10)
    defect = operator.matrix @ found.vectors.T - found.vectors.T * found.values
    torch.testing.assert_close(defect.norm(dim=0), found.residuals, rtol=1e-3, atol=1e-10 + 2e-8 * 7)
    assert found.asymmetry < 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1.0, 1e7, 1e-9])
def test_a_large_matrix_with_outliers(dtype, size) -> None:
    largest = [10.0, 9.0, 8.5, 5.0, 3.0]
    plain, vectors = with_eigenvalues(bulk(600, largest), dtype=dtype)
    operator = Dense(size * plain.matrix)
    found = largest_eigenpairs(operator, 5)
    found = replace(found, values=found.values / size, residuals=found.residuals / size)
    assert found.products >= 15
    assert found.converged
    assert found.vectors.dtype == dtype
    torch.testing.assert_close(found.values, torch.tensor(largest).double(), rtol=1e-5, atol=0)
    overlap = (found.vectors.double() @ vectors[:5].T).abs()
    torch.testing.assert_close(overlap, torch.eye(5).double(), rtol=0, atol=2e-2)
    errors = (found.values - torch.tensor(largest).double()).abs()
    assert (errors <= found.residuals + 1e-5).all()  # so near to each there is an eigenvalue


def test_a_start_near_by_saves_products() -> None:
    n, largest = 500, [10.0, 9.0, 8.5, 5.0, 4.0]
    operator, _ = with_eigenvalues(bulk(n, largest))
    cold = largest_eigenpairs(operator, 5)
    moved = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 1e-3
    near = Dense(operator.matrix + moved + moved.T)
    exact = torch.linalg.eigvalsh(near.matrix).flip(0)[:5]
    again, warm = largest_eigenpairs(near, 5), largest_eigenpairs(near, 5, start=cold.start)
    for found in (again, warm):
        torch.testing.assert_close(found.values, exact, rtol=1e-5, atol=0)
    assert warm.products < again.products
    assert cold.start.shape == (6, n)


@pytest.mark.parametrize("value", [20.0, 8.0, 9.0])
@pytest.mark.parametrize("n", [300, 2000])
def test_an_eigenvalue_that_comes_up_where_no_known_vector_points_is_found(value: float, n: int) -> None:
    """From one matrix to the next, in a direction that is orthogonal to all that the start knows; also a double one."""
    largest = torch.tensor([10.0, 9.0, 7.0, 6.0, 5.0], dtype=torch.float64)
    diagonal = torch.cat([largest, torch.linspace(0, 1, n - 5, dtype=torch.float64)])

    class Diagonal(Dense):
        def matvec(self, v: torch.Tensor) -> torch.Tensor:
            return self.matrix * v

        @property
        def like(self) -> torch.Tensor:
            return self.matrix

    start = torch.eye(n, dtype=torch.float64)[:5]
    diagonal[n // 2] = value
    found = largest_eigenpairs(Diagonal(diagonal), 5, start=start)
    expected = diagonal.sort(descending=True).values[:5]
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=0)


def test_what_was_found_is_given_where_products_end() -> None:
    operator, _ = with_eigenvalues(torch.linspace(0, 1, 400))
    found = largest_eigenpairs(operator, 5, most=15, tol=1e-10)
    assert operator.count == found.products == 15
    assert not found.converged
    exact = torch.linalg.eigvalsh(operator.matrix)
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert (exact - value).abs().min() <= residual + 1e-12


def test_products_that_are_not_symmetric_show() -> None:
    operator, _ = with_eigenvalues(bulk(100, [5.0]))
    skew = torch.randn(100, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-2
    assert largest_eigenpairs(operator, 2).asymmetry < 1e-12
    assert largest_eigenpairs(Dense(operator.matrix + skew - skew.T), 2).asymmetry > 1e-3


def test_moments_of_quadratures_are_those_of_the_matrix() -> None:
    """Exact up to degree 2m − 1, for each random vector: against powers of the matrix itself."""
    operator, _ = with_eigenvalues(bulk(60, [3.0, 2.0]))
    found = quadratures(operator, vectors=4, steps=5, seed=3)
    assert found.products == operator.count == 20
    source = torch.Generator().manual_seed(3)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        v = torch.randn(60, generator=source, dtype=torch.float64)
        v /= v.norm()
        for degree in range(10):
            expected = v @ torch.linalg.matrix_power(operator.matrix, degree) @ v
            assert float((weights * nodes**degree).sum()) == pytest.approx(float(expected), rel=1e-9)


def test_where_the_krylov_space_ends_the_rule_is_exact() -> None:
    operator, vectors = with_eigenvalues([4.0, 4.0, 1.0, 0.0, 0.0, 0.0])
    found = quadratures(operator, vectors=3, steps=5, seed=1)
    source = torch.Generator().manual_seed(1)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        v = torch.randn(6, generator=source, dtype=torch.float64)
        shares = (vectors @ v).square() / (v @ v)
        torch.testing.assert_close(nodes, torch.tensor([0.0, 1.0, 4.0, 4.0, 4.0]).double(), atol=1e-9, rtol=0)
        expected = torch.stack([shares[3:].sum(), shares[2], shares[:2].sum(), *torch.zeros(2)])
        torch.testing.assert_close(weights, expected.double(), atol=1e-9, rtol=0)


def test_no_eigenvalue_appears_twice() -> None:
    """Lanczos without orthogonalisation has found the outlier again after 30 steps."""
    operator, _ = with_eigenvalues(bulk(200, [1e4]))
    found = quadratures(operator, vectors=2, steps=60)
    assert ((found.nodes > 100).sum(dim=1) == 1).all()


def test_the_density_is_the_dense_one_within_its_standard_error() -> None:
    operator, _ = with_eigenvalues(bulk(200, [6.0, 4.0]))
    found = quadratures(operator, vectors=40, steps=25)
    density = smoothed(found.nodes, found.weights, width=0.3)
    exact = torch.linalg.eigvalsh(operator.matrix).numpy()
    bells = np.exp(-0.5 * ((density.at[:, None] - exact) / 0.3) ** 2) / (0.3 * math.sqrt(2 * math.pi))
    expected = bells.mean(axis=1)
    distance = np.abs(density.value - expected)
    assert (distance <= 5 * density.standard_error + 1e-3 * expected.max()).all()
    assert density.standard_error.max() < 0.2 * expected.max()
    assert np.trapezoid(density.value, density.at) == pytest.approx(1, abs=1e-3)


def test_the_standard_error_is_the_spread_over_seeds() -> None:
    operator, _ = with_eigenvalues(bulk(80, [5.0]))
    at = [0.0, 0.7, 5.0]
    drawn = [
        smoothed(one.nodes, one.weights, at=at, width=0.3)
        for one in (quadratures(operator, 8, 20, seed) for seed in range(60))
    ]
    spread = np.std([one.value for one in drawn], axis=0, ddof=1)
    stated = np.sqrt(np.mean([one.standard_error**2 for one in drawn], axis=0))
    np.testing.assert_allclose(stated, spread, rtol=0.5)
    assert np.isnan(smoothed([[1.0, 2.0]], [[0.5, 0.5]]).standard_error).all()


@pytest.mark.parametrize("known", [False, True])
def test_the_trace_is_unbiased_and_its_standard_error_the_spread(known: bool) -> None:
    values = bulk(60, [20.0, 10.0, -5.0])
    operator, vectors = with_eigenvalues(values)
    q = (vectors[:2], values[:2]) if known else None
    found = [trace(operator, 18, known=q, seed=seed) for seed in range(80)]
    exact = float(values.sum())
    mean = np.mean([one.value for one in found])
    spread = np.std([one.value for one in found], ddof=1)
    stated = math.sqrt(np.mean([one.standard_error**2 for one in found]))
    assert abs(mean - exact) < 4 * spread / math.sqrt(80)
    assert stated == pytest.approx(spread, rel=0.4)
    plain = float(2 * (operator.matrix.square().sum() - operator.matrix.diagonal().square().sum())) ** 0.5
    assert spread < 0.7 * plain / math.sqrt(18)  # than Hutchinson's with as many products
    assert all(one.products == 18 for one in found)
    assert operator.count == 18 * 80


def test_a_trace_of_low_rank_is_exact() -> None:
    operator, _ = with_eigenvalues([3.0, 2.0, -1.0, *[0.0] * 20])
    found = trace(operator, 15)
    assert found.value == pytest.approx(4, abs=1e-9)
    assert found.standard_error < 1e-9
    small, _ = with_eigenvalues([3.0, 2.0])
    assert trace(small, 9).value == pytest.approx(5, abs=1e-12)


STUDENT = {2: 12.706, 4: 3.182, 8: 2.365, 16: 2.131}
"""Of 95 % intervals, of so many numbers."""


@pytest.mark.parametrize("vectors", [2, 4, 16])
def test_of_95_percent_intervals_95_percent_hold_the_trace(vectors: int) -> None:
    """With 1.96 for Student's t it is 69 % with two vectors, 85 % with four."""
    values = torch.randn(60, generator=torch.Generator().manual_seed(2), dtype=torch.float64).square()
    operator, rows = with_eigenvalues(values)
    first = values.topk(3)
    known = (rows[first.indices], first.values)
    found = [trace(operator, vectors, known=known, seed=seed) for seed in range(400)]
    assert {one.vectors for one in found} == {vectors}
    held = [abs(one.value - float(values.sum())) <= STUDENT[vectors] * one.standard_error for one in found]
    assert 0.92 <= np.mean(held) <= 0.99  # ± 3 of its standard errors


def test_of_95_percent_intervals_95_percent_hold_the_density() -> None:
    values = torch.randn(60, generator=torch.Generator().manual_seed(2), dtype=torch.float64).square()
    operator, _ = with_eigenvalues(values)
    at, width = np.array([0.1, 0.7, 2.0]), 0.4
    exact = np.exp(-0.5 * ((at[:, None] - values.numpy()) / width) ** 2).mean(1) / (
        width * math.sqrt(2 * math.pi)
    )
    held = []
    for seed in range(60):
        rules = quadratures(operator, 8, 12, seed)
        found = smoothed(rules.nodes, rules.weights, at=at, width=width)
        held.append(np.abs(found.value - exact) <= STUDENT[8] * found.standard_error)
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("scale", [1e-30, 1e20])
def test_in_float32_matrices_of_any_scale(scale: float) -> None:
    """Whose norms' squares float32 does not hold."""
    values = bulk(60, [5.0, 4.0, 3.0]) * scale
    operator, _ = with_eigenvalues(values, dtype=torch.float32)
    found = largest_eigenpairs(operator, 4, seed=1)
    expected = values.sort(descending=True).values[:4]
    torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=0)
    assert (found.residuals > 0).all()
    rules = quadratures(operator, 3, 12)
    torch.testing.assert_close(rules.weights.sum(dim=1), torch.ones(3).double(), rtol=1e-5, atol=0)
    assert (rules.weights > 0).all()
    for one in (trace(operator, 30), trace(operator, 10, known=(found.vectors, found.values))):
        assert abs(one.value - float(values.sum())) < 5 * one.standard_error


def test_a_small_eigenvalue_is_not_hidden_by_a_large_negative_one() -> None:
    """To a tolerance of 5 % of the spectrum what lies below may seem to have converged after one product."""
    for seed in range(20):
        operator, _ = with_eigenvalues([-50.0, 0.45, 0.33, 0.31, 0.24, 0.13, 0.11, 0.02], seed)
        found = largest_eigenpairs(operator, 5, seed=seed)
        expected = torch.tensor([0.45, 0.33, 0.31, 0.24, 0.13]).double()
        torch.testing.assert_close(found.values, expected, rtol=0, atol=0.1)
