"""A flow as the engines want it: NumPy in and out, counted."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.flows import Flow

Array = NDArray[np.float64]


class Field:
    """The right-hand side of a flow, of the piece that is in force where the flow jumps.

    Args:
        noise: its rounding noise, relative to it; that of the problem's dtype if None.
    """

    def __init__(self, flow: Flow, noise: float | None = None) -> None:
        self.flow = flow
        self.noise = torch.finfo(flow.problem.dtype).eps if noise is None else noise
        self._in_force = flow
        self._count = 0

    def rhs(self, t: float, y: Array, dy: Array) -> None:
        """d state/dt at (t, y), written into dy; counted."""
        self._count += 1
        dy[:] = to_numpy(self._in_force.rhs(t, self._state(y)))

    def jvp(self, t: float, y: Array, v: Array, out: Array) -> None:
        """The Jacobian at (t, y) times v, written into out.

        Raises:
            TypeError: the flow has no product.
        """
        product = self._in_force.jvp
        if product is None:
            raise TypeError(f"{self.flow.title} has no Jacobian product")
        out[:] = to_numpy(product(t, self._state(y), self._state(v)))

    def is_finite_at(self, t: float, y: Array) -> bool:
        """Is the field in force at the start finite there? Not counted."""
        return bool(torch.isfinite(self.flow.during(0).rhs(t, self._state(y))).all())

    def enter(self, piece: int) -> None:
        """From here on the field is that of `flow.during(piece)`."""
        self._in_force = self.flow.during(piece)

    def take_count(self) -> int:
        """Right-hand sides since the last call."""
        count, self._count = self._count, 0
        return count

    def theta(self, y: Array) -> Tensor:
        """The parameters in an engine's state, in float64 on the CPU whatever the problem computes in."""
        return self.flow.theta_in(torch.from_numpy(y.copy()))

    def _state(self, y: Array) -> Tensor:
        # Engines hand out arrays that are read-only, reused or freed later, and the model's parameters will be views
        # of what they are given: so it is a copy.
        return torch.from_numpy(y.copy()).to(device=self.flow.problem.device, dtype=self.flow.problem.dtype)


def to_numpy(tensor: Tensor) -> Array:
    """On the host, in float64."""
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
