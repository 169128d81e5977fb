"""A loss and its derivatives at many points at once: what members of an ensemble, or of one training, need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from nm_ode.arguments import as_real, as_tensor
from nm_ode.data.indices import Samples
from nm_ode.loss.batching import DeviceBatches
from nm_ode.loss.consistency import Consistency
from nm_ode.loss.evaluation import Evaluation
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.vectorised import MEMBERS, OWN_BATCHES, Vectorised
from nm_ode.modes import in_own_modes
from nm_ode.parameters import Layout


class ManyPoints(ABC):
    """Of a `Problem`, which has one theta at a time beside."""

    layout: Layout
    dtype: torch.dtype
    device: torch.device
    _at: Evaluation
    _batches: DeviceBatches
    _consistency: Consistency
    _vectorised: Vectorised

    @abstractmethod
    def loss(self, theta: Tensor, samples: Samples = None) -> Tensor:
        """L(theta)."""

    @abstractmethod
    def loss_and_grad(
        self, theta: Tensor, samples: Samples = None, *, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """L(theta) and ∇L(theta)."""

    @abstractmethod
    def hvp(self, theta: Tensor, v: Tensor, samples: Samples = None) -> Tensor:
        """H(theta) v."""

    @in_own_modes
    def ensemble_loss_and_grad(self, thetas: Tensor, samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """L and ∇L at M points, shapes (M,) and (M, P), many at once as `sample_grads`.

        Args:
            thetas: shape (M, P).
            samples: shape (M, B), the samples of each point's batch; all samples for each if None.

        Raises:
            ProblemError: shapes that do not go together.
        """
        thetas = self._members(thetas, "thetas")
        if samples is not None:
            samples = as_tensor(samples, "samples", error=ProblemError)
        if samples is not None and (samples.ndim != 2 or len(samples) != len(thetas) or not samples.numel()):
            raise ProblemError(
                f"samples have shape {tuple(samples.shape)}; they must have ({len(thetas)}, samples of a batch)"
            )
        with self._at.watched():
            return self._vectorised.loss_and_grad(thetas, self._batches, samples, self.loss_and_grad)

    @in_own_modes
    def ensemble_loss(self, thetas: Tensor) -> Tensor:
        """L at M points over all samples, shape (M,), many at once as `sample_grads`.

        Raises:
            ProblemError: another shape.
        """
        thetas = self._members(thetas, "thetas")
        with self._at.watched():
            return self._vectorised.losses(thetas, self._batches, self.loss)

    def many_are_faster(self, samples: int) -> bool:
        """Is one gradient over so many samples so little work that several at once can be faster?"""
        return self._vectorised.gains(self._at.theta, samples)

    def not_vectorised(self, *, own_batches: bool) -> str:
        """Why `ensemble_loss_and_grad` takes the gradients one at a time; empty if it does not, or was not called.

        Args:
            own_batches: with samples for each point.
        """
        return self._vectorised.reasons.get(OWN_BATCHES if own_batches else MEMBERS, "")

    @in_own_modes
    def ensemble_hvp(self, thetas: Tensor, vectors: Tensor) -> Tensor:
        """H(theta) v at M points, each with its own v, over all samples: shape (M, P), many at once as `sample_grads`.

        Raises:
            ProblemError: shapes that do not go together.
            NoSecondDerivative: as `hvp`.
        """
        thetas, vectors = self._members(thetas, "thetas"), self._members(vectors, "vectors")
        if len(thetas) != len(vectors):
            raise ProblemError(f"there are {len(thetas)} thetas and {len(vectors)} vectors")
        self._consistency.require_hessian()
        with self._at.watched():
            return self._vectorised.hvp(thetas, vectors, self._batches, self.hvp)

    def _members(self, given: Any, name: str) -> Tensor:
        """On the device and in the dtype of theta, shape (M, P)."""
        found = as_real(given, name, error=ProblemError)
        if found.ndim != 2 or found.shape[1] != self.layout.size:
            raise ProblemError(
                f"{name} have shape {tuple(found.shape)}; this problem's have (members, {self.layout.size})"
            )
        return found.to(device=self.device, dtype=self.dtype)
