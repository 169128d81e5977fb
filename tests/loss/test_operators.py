"""The Hessian and the gradients' covariance as operators: against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh

from nm_ode import Problem
from nm_ode.loss.operators import GradientCovariance, Hessian, Preconditioned, SymmetricOperator
from nm_ode.loss.spectrum import largest, sharpness
from tests.oracles.dense import dense_gradient, dense_hessian, dense_loss

FEW = torch.tensor([2, 0, 11, 5])


def matrices(problem: Problem, theta: torch.Tensor) -> dict[str, tuple[SymmetricOperator, torch.Tensor]]:
    """Operators, each with the matrix that it should be."""

    def loss(samples: torch.Tensor | None):
        x, y = problem.batch(samples)
        return dense_loss(problem.model, problem.loss_fn, x, y)

    hessian = dense_hessian(loss(None), theta)
    diagonal = torch.linspace(0.5, 3, len(theta), dtype=torch.float64)
    root = diagonal.sqrt()
    gradients = torch.stack(
        [dense_gradient(loss(torch.tensor([i])), theta) for i in range(problem.n_samples)]
    )
    covariance = torch.cov(gradients.T, correction=0)
    return {
        "hessian": (Hessian(problem, theta), hessian),
        "of some samples": (Hessian(problem, theta, FEW), dense_hessian(loss(FEW), theta)),
        "preconditioned": (
            Preconditioned(Hessian(problem, theta), diagonal),
            hessian / root[:, None] / root,
        ),
        "covariance": (GradientCovariance.at(problem, theta), covariance),
        "covariance of some": (
            GradientCovariance.at(problem, theta, FEW),
            torch.cov(gradients[FEW].T, correction=0),
        ),
    }


KINDS = ["hessian", "of some samples", "preconditioned", "covariance", "covariance of some"]


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_the_dense_matrix(kind: str, tiny: Problem) -> None:
    operator, dense = matrices(tiny, tiny.theta0 + 0.1)[kind]
    vectors = torch.randn(operator.size, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(operator.matmat(vectors), dense @ vectors, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(operator.matvec(vectors[:, 0]), dense @ vectors[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_scipy_finds_the_eigenvalues(kind: str, tiny: Problem) -> None:
    operator, dense = matrices(tiny, tiny.theta0 + 0.1)[kind]
    exact = np.linalg.eigvalsh(dense.numpy())
    values = eigsh(operator.as_scipy(), k=2, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(values), exact[-2:], rtol=1e-8)
    view = operator.as_scipy()
    np.testing.assert_allclose(view @ np.eye(operator.size), dense.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        view.T @ np.ones(operator.size), dense.numpy().sum(axis=0), rtol=1e-8, atol=1e-12
    )
    found = largest(operator, tol=1e-9)
    assert found.value == pytest.approx(exact[-1], rel=1e-8)
    residual = dense.numpy() @ found.vector - found.value * found.vector
    assert np.linalg.norm(residual) < 1e-6 * found.value


def test_diagonal_and_trace_of_the_covariance(tiny: Problem) -> None:
    operator, dense = matrices(tiny, tiny.theta0)["covariance"]
    assert isinstance(operator, GradientCovariance)
    torch.testing.assert_close(operator.diagonal, dense.diagonal())
    assert operator.trace == pytest.approx(float(dense.trace()))


def test_a_start_near_by_saves_products(tiny: Problem) -> None:
    cold = sharpness(tiny, tiny.theta0, tol=1e-6)
    warm = sharpness(tiny, tiny.theta0 * 1.001, tol=1e-6, v0=cold.vector)
    assert warm.hvp_evaluations <= cold.hvp_evaluations


def test_float32_operators_serve_scipy_too(tiny: Problem) -> None:
    single = Problem(tiny.model, tiny.loss_fn, tiny.batch(), dtype=torch.float32)
    exact = sharpness(tiny, tiny.theta0, tol=1e-6).value
    assert sharpness(single, single.theta0, tol=1e-4).value == pytest.approx(exact, rel=1e-3)
