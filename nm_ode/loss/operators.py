"""Symmetric matrices of a loss that are never written down: the Hessian, the covariance of sample gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from nm_ode.data.indices import Samples
from nm_ode.loss.problem import Problem


class SymmetricOperator(ABC):
    """A symmetric P × P matrix by its products, on the device and in the dtype of theta."""

    @property
    @abstractmethod
    def size(self) -> int:
        """P."""

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device that vectors must have."""

    @abstractmethod
    def matvec(self, v: Tensor) -> Tensor:
        """A v, shape (P,)."""

    def matmat(self, vectors: Tensor) -> Tensor:
        """A V, shape (P, k)."""
        return torch.stack([self.matvec(column) for column in vectors.unbind(1)], dim=1)

    def as_scipy(self) -> LinearOperator:
        """The same for SciPy, on the host in float64."""

        def to_torch(array: NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(np.array(array, dtype=np.float64)).to(self.like)

        def to_numpy(tensor: Tensor) -> NDArray[np.float64]:
            return np.asarray(tensor.cpu().numpy(), dtype=np.float64)

        def matvec(v: NDArray[np.float64]) -> NDArray[np.float64]:
            return to_numpy(self.matvec(to_torch(v.reshape(-1))))

        def matmat(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
            return to_numpy(self.matmat(to_torch(vectors)))

        shape = (self.size, self.size)
        return LinearOperator(
            shape, matvec=matvec, rmatvec=matvec, matmat=matmat, rmatmat=matmat, dtype=np.float64
        )


@dataclass(frozen=True, eq=False)
class Hessian(SymmetricOperator):
    """∇²L at theta, over `samples` (all if None); a product costs about three gradients."""

    problem: Problem
    theta: Tensor
    samples: Samples = None

    @property
    def size(self) -> int:
        """P."""
        return self.problem.layout.size

    @property
    def like(self) -> Tensor:
        """theta0's."""
        return self.problem.theta0

    def matvec(self, v: Tensor) -> Tensor:
        """H v, shape (P,), exact."""
        return self.problem.hvp(self.theta, v, self.samples)


@dataclass(frozen=True, eq=False)
class Shifted(SymmetricOperator):
    """A + λ."""

    operator: SymmetricOperator
    by: float

    @property
    def size(self) -> int:
        """P."""
        return self.operator.size

    @property
    def like(self) -> Tensor:
        """As of A."""
        return self.operator.like

    def matvec(self, v: Tensor) -> Tensor:
        """Shape (P,)."""
        return self.operator.matvec(v).add(v, alpha=self.by)


@dataclass(frozen=True, eq=False)
class Preconditioned(SymmetricOperator):
    """D^{-1/2} A D^{-1/2} with D positive and diagonal, shape (P,)."""

    operator: SymmetricOperator
    diagonal: Tensor

    @property
    def size(self) -> int:
        """P."""
        return self.operator.size

    @property
    def like(self) -> Tensor:
        """As of A."""
        return self.operator.like

    def matvec(self, v: Tensor) -> Tensor:
        """Shape (P,)."""
        root = self.diagonal.sqrt()
        return self.operator.matvec(v / root) / root


@dataclass(frozen=True, eq=False)
class GradientCovariance(SymmetricOperator):
    """AᵀA/N, A being the deviations: the covariance of the gradient of one sample, drawn at random.

    Attributes:
        deviations: shape (N, P), each sample's gradient less their mean.
    """

    deviations: Tensor

    @classmethod
    def at(cls, problem: Problem, theta: Tensor, samples: Samples = None) -> GradientCovariance:
        """At theta, of `samples` (all if None).

        Raises:
            ProblemError: a loss with which a sample has no gradient of its own, as of `sample_grads`.
        """
        gradients = problem.sample_grads(theta, samples)
        return cls(gradients.sub_(gradients.mean(dim=0)))

    @property
    def size(self) -> int:
        """P."""
        return self.deviations.shape[1]

    @property
    def like(self) -> Tensor:
        """The deviations themselves."""
        return self.deviations

    def matvec(self, v: Tensor) -> Tensor:
        """Shape (P,)."""
        return (self.deviations @ v) @ self.deviations / len(self.deviations)

    def matmat(self, vectors: Tensor) -> Tensor:
        """Shape (P, k)."""
        return self.deviations.T @ (self.deviations @ vectors) / len(self.deviations)

    @property
    def diagonal(self) -> Tensor:
        """The variances, shape (P,)."""
        return self.deviations.square().mean(dim=0)

    @property
    def trace(self) -> float:
        """Sum of the variances."""
        return float(self.deviations.square().sum()) / len(self.deviations)
