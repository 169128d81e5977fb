"""What there is at the edge of stability at one theta: eigenpairs, the oscillation, and the field that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

_OSCILLATES = 1e-6  # over the largest variance: less is at the end of its range


@dataclass(frozen=True, eq=False)
class Edge:
    """The edge of stability at one theta.

    Attributes:
        state: the flow's.
        theta: the place.
        values: eigenvalues that are followed, of the Hessian as the optimiser sees it (preconditioned, with weight
            decay), shape (k,), from the largest down.
        vectors: shape (k, P), orthonormal rows that span their eigenvectors, and are them where D is 1.
        bent: ∇²L times the vectors, shape (k, P).
        largest: the largest eigenvalue, followed or not.
        oscillation: X, shape (k, k): Σ = Σ_ij X_ij v_i v_jᵀ, v being the vectors.
        kkt: residual of the conditions on X.
        loss: L, without weight decay.
        gradient: ∇L, without weight decay.
        average: of ∇L along the run, ∇L + ½ Σ_ij X_ij T_ij.
        field: d state / dt, without what is of a delay; None where it was not asked for.
        thirds: T_ij, shape (k, k, P).
        response: B, shape (k, k, k, k).
        needed: tr X of the central flow, of which a delayed one has a share.
    """

    state: Tensor
    theta: Tensor
    values: Array
    vectors: Tensor
    bent: Tensor
    largest: float
    oscillation: Array
    kkt: float
    loss: Tensor
    gradient: Tensor
    average: Tensor
    field: Tensor | None
    thirds: Tensor
    response: NDArray[np.float64]
    needed: float

    def change(self, along: Tensor, product: Tensor, tau: float) -> Tensor | None:
        """How ½ Σ X_ij T_ij changes along v, with T and the range of X held fixed; None where nothing oscillates.

        Args:
            along, product: v and Hv, shape (P,).
        """
        variances, turn = self._spectrum
        if variances.sum() < 0.999 * self.needed:
            return None  # of an oscillation that is still growing the size does not answer to theta
        rank = int((variances > _OSCILLATES * variances[:1].sum()).sum())
        if not rank:
            return None
        k, active = len(variances), turn[:, :rank]
        flat = self.thirds.reshape(k * k, -1)
        pull = (flat @ product.sub(along, alpha=1 / tau)).double().cpu().numpy().reshape(k, k)
        pairs = [(i, j) for i in range(rank) for j in range(i, rank)]
        basis = np.stack([_symmetric(active[:, i], active[:, j]) for i, j in pairs])
        matrix = np.einsum("aij,ijkl,bkl->ab", basis, self.response, basis, optimize=True)
        share = np.linalg.lstsq(matrix, -np.einsum("aij,ij->a", basis, pull))[0]
        change = np.einsum("a,aij->ij", share, basis)
        return torch.from_numpy(change.reshape(-1) / 2).to(flat) @ flat

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
        """The time average of L: L + ½⟨Σ, H⟩, which is L + tr Σ/η at the edge of plain descent."""
        return float(self.loss) + self._summed(self.vectors @ self.bent.T) / 2

    @property
    def predicted_grad_norm(self) -> float:
        """The root of the time average of ‖∇L‖²: of ‖E∇L‖² + tr HΣH."""
        own = float(self.average.double().square().sum())
        return float(np.sqrt(own + self._summed(self.bent @ self.bent.T)))

    def _summed(self, pairs: Tensor) -> float:
        return float(np.sum(self.oscillation * pairs.double().cpu().numpy()))


def _symmetric(one: Array, other: Array) -> Array:
    outer = np.outer(one, other)
    return np.asarray((outer + outer.T) / 2)


def distance_to_edge(values: Array, edge: float, width: float) -> Array:
    """(edge − λ)/(1 − (edge − λ)/width), shape (k,): the distance near the edge, without bound where directions end.

    So what a direction has of the oscillation goes to zero before it is no longer followed, and the field is
    continuous. Beyond the edge it is the distance itself, which is negative.

    Args:
        values: eigenvalues λ, all above edge − width.
    """
    gap = edge - values
    return np.asarray(gap / (1 - np.clip(gap, 0.0, None) / width))


def nowhere(state: Tensor, size: int, loss: Tensor, gradient: Tensor) -> Edge:
    """Where the loss has overflowed: a field of this size that is not finite, at which a solve stops."""
    none, nothing = torch.full_like(gradient, math.nan), gradient.new_empty(0, len(gradient))
    return Edge(
        state=state.clone(),
        theta=state[: len(gradient)].clone(),
        values=np.empty(0),
        vectors=nothing,
        bent=nothing,
        largest=math.nan,
        oscillation=np.empty((0, 0)),
        kkt=math.nan,
        loss=loss,
        gradient=gradient,
        average=none,
        field=state.new_full((size,), math.nan),
        thirds=gradient.new_empty(0, 0, len(gradient)),
        response=np.empty((0,) * 4),
        needed=0.0,
    )
