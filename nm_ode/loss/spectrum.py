"""Eigenvalues of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from nm_ode.loss.operators import Hessian, Preconditioned, Shifted, SymmetricOperator
from nm_ode.loss.problem import Problem

_BASIS = 12  # Lanczos vectors


@dataclass(frozen=True)
class Sharpness:
    """Largest eigenvalue of the Hessian, a unit eigenvector, and what they cost."""

    value: float
    vector: NDArray[np.float64]
    hvp_evaluations: int


def sharpness(
    problem: Problem,
    theta: Tensor,
    *,
    preconditioner: Tensor | None = None,
    decay: float = 0.0,
    v0: NDArray[np.float64] | None = None,
    tol: float = 1e-4,
) -> Sharpness:
    """λ_max of H(theta) + λ or D^{-1/2} (H + λ) D^{-1/2}, by Lanczos on exact Hessian products (`eigsh`).

    Args:
        theta: shape (P,).
        preconditioner: D, shape (P,), positive.
        decay: λ, of weight decay that is part of the gradient.
        v0: where to start: the eigenvector of a point near by saves most of the products. Random if None.
        tol: of the eigenvalue, relative.
    """
    hessian: SymmetricOperator = Hessian(problem, theta)
    if decay:
        hessian = Shifted(hessian, decay)
    return largest(hessian if preconditioner is None else Preconditioned(hessian, preconditioner), v0, tol)


def largest(
    operator: SymmetricOperator, v0: NDArray[np.float64] | None = None, tol: float = 1e-4
) -> Sharpness:
    """λ_max of a symmetric operator; arguments as of `sharpness`."""
    matrix, n, products, vanishes = operator.as_scipy(), operator.size, 0, True

    def product(v: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal products, vanishes
        products += 1
        found: NDArray[np.float64] = matrix.matvec(v)
        vanishes = vanishes and not found.any()
        return found

    if n == 1:
        return Sharpness(float(product(np.ones(1))[0]), np.ones(1), products)
    drawn = np.random.default_rng(0).standard_normal(n)
    counted = LinearOperator((n, n), matvec=product, dtype=np.float64)
    for start in (drawn,) if v0 is None else (v0, drawn):
        try:
            values, vectors = eigsh(counted, k=1, which="LA", v0=start, tol=tol, ncv=min(n, _BASIS))
        except ArpackError:
            if not vanishes:
                raise
        else:
            return Sharpness(float(values[0]), vectors[:, 0], products)
    # A matrix that takes a drawn vector to nothing is nothing.
    return Sharpness(0.0, drawn / np.linalg.norm(drawn), products)
