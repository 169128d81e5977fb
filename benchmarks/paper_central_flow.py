"""The central flow of plain descent by the paper's own scheme, from the paper alone: no code of nm_ode's flow is in it.

Cohen, Damian, Talwalkar, Kolter, Lee, "Understanding Optimization in Deep Learning with Central Flows", ICLR 2025
(arXiv 2410.24206), and what their program does by default: Euler steps, four to a step of the optimiser; the largest
eigenpairs by LOBPCG once a step, started from those before, and between these uᵢᵀHuᵢ for the eigenvalues; the
directions with ηλ > 1.95 in the complementarity problem, and so many eigenpairs followed that the last has ηλ < 1.5.
All in float64, with the exact third derivatives ∇(uᵢᵀHuⱼ). It is both what nm_ode is compared with and an oracle.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, lobpcg
from torch import Tensor
from torch.func import functional_call

from nm_ode import Problem

CRITICAL, FOLLOWED = 1.95, 1.5  # of ηλ
TOLERANCE = 1e-5  # of an eigenvector's residual, relative to the eigenvalue


class Counted:
    """A loss at one theta after the other, and its derivatives, counted. Many of a kind are made at once.

    Attributes:
        counts: gradients, Hessian products and third derivatives that were asked for.
    """

    def __init__(self, problem: Problem) -> None:
        self.size, self.counts = problem.layout.size, Counter[str]()
        self._problem, (self._x, self._y) = problem, problem.batch()

    def at(self, w: Tensor) -> Tensor:
        """Go to w; its gradient."""
        self.counts["gradients"] += 1
        self._w = w.clone().requires_grad_()
        layout, loss_fn = self._problem.layout, self._problem.loss_fn
        assert loss_fn is not None
        parameters = dict(zip(layout.names, layout.split(self._w), strict=True))
        loss = loss_fn(functional_call(self._problem.model, parameters, self._x), self._y)
        (self._gradient,) = torch.autograd.grad(loss, self._w, create_graph=True)
        return self._gradient.detach()

    def products(self, vectors: Tensor) -> Tensor:
        """H v of each row."""
        self.counts["hvps"] += len(vectors)
        return self._derivatives(self._gradient, vectors)

    def third(self, vectors: Tensor) -> Tensor:
        """∇(uᵢᵀHuⱼ), shape (k, k, P)."""
        k = len(vectors)
        self.counts["third_derivatives"] += k * (k + 1) // 2
        found = vectors.new_empty(k, k, self.size)
        for i in range(k):
            (image,) = torch.autograd.grad(
                self._gradient, self._w, vectors[i], create_graph=True, retain_graph=True
            )
            found[i, : i + 1] = found[: i + 1, i] = self._derivatives(image, vectors[: i + 1])
        return found

    def _derivatives(self, of: Tensor, along: Tensor) -> Tensor:
        (rows,) = torch.autograd.grad(of, self._w, along, is_grads_batched=True, retain_graph=True)
        return rows


class Eigenpairs:
    """The largest eigenvalues of the Hessian along a path, and their vectors in columns."""

    def __init__(self, loss: Counted, lr: float) -> None:
        self._loss, self._lr = loss, lr
        self._drawn = np.random.default_rng(0)
        self.vectors = self._drawn.standard_normal((loss.size, 1))

    def renew(self) -> tuple[np.ndarray, np.ndarray]:
        while True:
            values = self._search()
            if self._lr * values[-1] < FOLLOWED:
                return values, self.vectors
            more = self._drawn.standard_normal((len(self.vectors), 1))
            self.vectors = np.concatenate([self.vectors, more], axis=1)

    def refresh(self) -> tuple[np.ndarray, np.ndarray]:
        """uᵢᵀHuᵢ with the vectors that were found last."""
        images = self._product(self.vectors)
        values = (self.vectors * images).sum(axis=0)
        order = np.argsort(-values)
        self.vectors = self.vectors[:, order]
        return values[order], self.vectors

    def _search(self) -> np.ndarray:
        size = len(self.vectors)
        operator = LinearOperator(
            (size, size),
            matvec=lambda v: self._product(v.reshape(size, 1)),
            matmat=lambda v: self._product(v),
            dtype=np.float64,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the last digits
            tolerance = TOLERANCE * FOLLOWED / self._lr
            values, vectors = lobpcg(operator, self.vectors, tol=tolerance, maxiter=60, largest=True)
        order = np.argsort(-values)
        self.vectors = np.linalg.qr(vectors[:, order])[0]
        return values[order]

    def _product(self, columns: np.ndarray) -> np.ndarray:
        return self._loss.products(torch.from_numpy(columns.T.copy())).T.numpy()


def complementary(a: np.ndarray, b: np.ndarray, tol: float = 1e-13, most: int = 20_000) -> np.ndarray:
    """0 ⪯ X ⟂ A + B[X] ⪰ 0 by alternating directions: of A of shape (k, k), and B (k, k, k, k)."""
    k = len(a)
    if np.linalg.eigvalsh(a)[0] >= 0:
        return np.zeros_like(a)
    matrix = b.reshape(k * k, k * k)
    largest = np.linalg.eigvalsh(matrix)
    rho = float(np.sqrt(max(largest[-1], 1e-300) * max(largest[k * (k - 1) // 2], 1e-6 * largest[-1])))
    factor = cho_factor(matrix + rho * np.eye(k * k))
    z = u = np.zeros((k, k))
    for _ in range(most):
        x = cho_solve(factor, (rho * (z - u) - a).reshape(-1)).reshape(k, k)
        values, vectors = np.linalg.eigh((x + u + (x + u).T) / 2)
        before, z = z, (vectors * values.clip(min=0)) @ vectors.T
        u = u + x - z
        size = max(float(np.abs(z).max()), 1e-300)
        if np.abs(x - z).max() < tol * size and np.abs(z - before).max() < tol * size:
            break
    return z


@dataclass(frozen=True)
class Path:
    """Where the flow is after each step of the optimiser.

    Attributes:
        w: shape (steps + 1, P).
        trace: tr X in the substep that begins there.
        counts: gradients, Hessian products and third derivatives of the whole path.
    """

    w: np.ndarray
    trace: np.ndarray
    critical: np.ndarray
    counts: dict[str, int]


def central_path(
    problem: Problem, lr: float, steps: int, substeps: int = 4, *, every_substep: bool = False
) -> Path:
    """Euler's method.

    Args:
        substeps: to a step of the optimiser.
        every_substep: are the eigenvectors renewed at each of them?
    """
    loss, h = Counted(problem), lr / substeps
    pairs, w = Eigenpairs(loss, lr), problem.theta0.clone()
    path, traces, critical = [w.numpy().copy()], [], []
    for _ in range(steps):
        for i in range(substeps):
            gradient = loss.at(w)
            values, vectors = pairs.renew() if every_substep or i == 0 else pairs.refresh()
            k = int((lr * values > CRITICAL).sum())
            velocity, x = _velocity(loss, gradient, lr, h, values[:k], vectors[:, :k])
            w = w + h * velocity
            if i == 0:
                traces.append(float(np.trace(x)))
                critical.append(k)
        path.append(w.numpy().copy())
    return Path(np.stack(path), np.array([*traces, np.nan]), np.array([*critical, 0]), dict(loss.counts))


def _velocity(
    loss: Counted, gradient: Tensor, lr: float, h: float, values: np.ndarray, vectors: np.ndarray
) -> tuple[Tensor, np.ndarray]:
    """−g − ½ Σ X_ij T_ij, and X."""
    k = len(values)
    if not k:
        return -gradient, np.zeros((0, 0))
    flat = loss.third(torch.from_numpy(vectors.T.copy())).reshape(k * k, -1)
    a = (2 / lr) * np.eye(k) - np.diag(values) + h * (flat @ gradient).numpy().reshape(k, k)
    b = (0.5 * h) * (flat @ flat.T).numpy().reshape(k, k, k, k)
    x = complementary(a, b)
    return -gradient - 0.5 * torch.from_numpy(x.reshape(-1)) @ flat, x
