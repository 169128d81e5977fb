"""What there is at the edge of stability at one theta: eigenpairs, the oscillation, and the field that they make."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Edge:
    """The edge of stability at one theta.

    Attributes:
        values: eigenvalues of the Hessian that are followed, shape (k,), from the largest down.
        vectors: their eigenvectors, shape (k, P), orthonormal rows.
        largest: the largest eigenvalue, followed or not; NaN where it was not measured.
        decay: what weight decay adds to each eigenvalue.
        oscillation: X, shape (k, k): Σ = Σ_ij X_ij u_i u_jᵀ.
        kkt: residual of the conditions on X.
        loss: L, without weight decay.
        gradient: ∇L, without weight decay.
        field: d theta / dt.
    """

    values: Array
    vectors: Tensor
    largest: float
    decay: float
    oscillation: Array
    kkt: float
    loss: Tensor
    gradient: Tensor
    field: Tensor

    @cached_property
    def _spectrum(self) -> tuple[Array, Array]:
        values, turn = np.linalg.eigh(self.oscillation)
        return np.clip(values[::-1], 0.0, None), turn[:, ::-1]

    @property
    def variances(self) -> Array:
        """Eigenvalues of Σ, from the largest down, shape (k,)."""
        return self._spectrum[0]

    @property
    def modes(self) -> Tensor:
        """Eigenvectors of Σ times the roots of its eigenvalues, shape (k, P)."""
        variances, turn = self._spectrum
        return torch.from_numpy((turn * np.sqrt(variances)).T.copy()).to(self.vectors) @ self.vectors

    @property
    def predicted_loss(self) -> float:
        """The time average of L: L + ½⟨Σ, H⟩, which is L + tr X/η at the edge."""
        return float(self.loss) + float(np.diag(self.oscillation) @ (self.values - self.decay)) / 2

    @property
    def predicted_grad_norm(self) -> float:
        """The root of the time average of ‖∇L‖²: of ‖g‖² + tr HΣH."""
        own = float(self.gradient.double().square().sum())
        return float(np.sqrt(own + np.diag(self.oscillation) @ (self.values - self.decay) ** 2))


def distance_to_edge(values: Array, edge: float, width: float) -> Array:
    """(edge − λ)/(1 − (edge − λ)/width), shape (k,): the distance near the edge, without bound where directions end.

    So what a direction has of the oscillation goes to zero before it is no longer followed, and the field is
    continuous. Beyond the edge it is the distance itself, which is negative.

    Args:
        values: eigenvalues λ, all above edge − width.
    """
    gap = edge - values
    return np.asarray(gap / (1 - np.clip(gap, 0.0, None) / width))
