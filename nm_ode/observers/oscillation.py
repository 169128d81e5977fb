"""The oscillation that a central flow has beside its state, recorded at each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.observers.base import Coordinates, Observer, View
from nm_ode.results import Variable


class Oscillating(Protocol):
    """The edge of stability at one state (nm_ode/flows/central)."""

    @property
    def values(self) -> NDArray[np.float64]:
        """The eigenvalues that are followed, from the largest down."""
        ...

    @property
    def kkt(self) -> float: ...
    @property
    def variances(self) -> NDArray[np.float64]:
        """Eigenvalues of Σ, from the largest down."""
        ...

    @property
    def modes(self) -> Tensor:
        """Shape (k, P): eigenvectors of Σ times the roots of its eigenvalues."""
        ...

    @property
    def largest(self) -> float:
        """The largest eigenvalue, near the edge or not."""
        ...

    @property
    def predicted_loss(self) -> float: ...
    @property
    def predicted_grad_norm(self) -> float: ...


class Oscillations(Observer):
    """What is at the edge of stability at each sample of a central flow, and what the run's averages are by it.

    Args:
        at: theta → the edge there.
        most: eigenpairs that there may be.
        edge: the eigenvalue at which descent oscillates.
        seen: a mode as it is recorded, with the name of its dimension; None for not at all.
    """

    def __init__(
        self,
        at: Callable[[Tensor], Oscillating],
        most: int,
        edge: float,
        seen: tuple[str, Callable[[Tensor], Tensor]] | None,
    ) -> None:
        self._at, self._most, self._edge, self._seen = at, most, edge, seen
        self.variables = dict(_DECLARED)
        if seen is not None:
            long_name = "eigenvectors of the oscillation's covariance times the roots of its eigenvalues"
            self.variables["oscillation_vector"] = Variable(("critical", seen[0]), long_name)

    def coordinates(self) -> Coordinates:
        return {"critical": ("critical", np.arange(self._most))}

    def constants(self) -> Mapping[str, float]:
        return {"critical_edge": self._edge}

    def memory(self) -> Mapping[str, Any]:
        return {"most": self._most, "edge": self._edge}  # a checkpoint is of one flow alone

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Nothing is remembered that may change."""

    def observe(self, view: View) -> Mapping[str, Any]:
        found = self._at(view.state())
        recorded: dict[str, Any] = {
            "critical_eigenvalue": self._padded(found.values),
            "critical_count": float(len(found.values)),
            "largest_eigenvalue": found.largest,
            "oscillation": self._padded(found.variances),
            "oscillation_trace": float(found.variances.sum()),
            "kkt_residual": found.kkt,
            "predicted_loss": found.predicted_loss,
            "predicted_grad_norm": found.predicted_grad_norm,
        }
        if self._seen is not None:
            rows = [self._seen[1](mode.to(view.theta)) for mode in found.modes]
            size = len(self._seen[1](view.theta)) if not rows else len(rows[0])
            modes = view.theta.new_full((self._most, size), math.nan)
            for i, row in enumerate(rows):
                modes[i] = row
            recorded["oscillation_vector"] = modes
        return recorded

    def _padded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.full(self._most, np.nan)
        found[: len(values)] = values
        return found


_DECLARED = {
    "critical_eigenvalue": Variable(("critical",), "eigenvalues of the Hessian near the edge of stability"),
    "critical_count": Variable((), "number of eigenvalues near the edge of stability"),
    "largest_eigenvalue": Variable((), "largest eigenvalue of the Hessian"),
    "oscillation": Variable(("critical",), "eigenvalues of the oscillation's covariance Σ"),
    "oscillation_trace": Variable((), "tr Σ, the predicted variance of the run about its average"),
    "kkt_residual": Variable((), "residual of the conditions that Σ must fulfil, relative"),
    "predicted_loss": Variable((), "time average of the run's loss, as predicted"),
    "predicted_grad_norm": Variable((), "root of the time average of ‖∇L‖², as predicted"),
}
