"""A flow as the engines want it: arrays on the host, or tensors where the flow computes; counted."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridges.vectors import Vector
from nm_ode.arguments import said
from nm_ode.flows import Flow, FlowError

Array = NDArray[np.float64]


class Field:
    """The right-hand side of a flow, of the piece that is in force where the flow jumps.

    Of tensors it takes those of the problem's dtype, on its device, and evaluates where they lie: the model's
    parameters are views of what an engine gives.

    Args:
        noise: its rounding noise, relative to it; that of the problem's dtype if None.
    """

    def __init__(self, flow: Flow, noise: float | None = None) -> None:
        self.flow = flow
        self.noise = torch.finfo(flow.problem.dtype).eps if noise is None else noise
        self._in_force = flow
        self._writes = _writes(flow)
        self._count = 0

    def rhs(self, t: float, y: Vector, dy: Vector) -> None:
        """d state/dt at (t, y), written into dy; counted.

        Raises:
            FlowError: the flow writes to the state that it is given, which is the engine's own, or gives anything but a
                vector of its size.
        """
        self._count += 1
        if not isinstance(y, Tensor):
            dy[:] = to_numpy(self._vector(self._in_force.rhs(t, self.state(y)), len(y)))
            return
        # Others of the same memory, and count of writes: a graph that a flow makes of them ends with them.
        written, state, out = y._version, y.detach(), dy.detach()
        if self._writes:
            found = self._in_force.rhs(t, state, out=out)  # type: ignore[call-arg]
        else:
            found = self._in_force.rhs(t, state)
        if found is not out:
            dy.copy_(self._vector(found, len(y)))
        if y._version != written:
            raise FlowError(
                f"{self.flow.title}: rhs writes to the state that it is given, which is the solver's own: let it work "
                "on a copy"
            )

    def _vector(self, found: object, size: int) -> Tensor:
        """What a right-hand side gave, without its graph; one number would be taken for all entries."""
        if isinstance(found, Tensor) and found.shape == (size,):
            return found.detach()
        raise FlowError(
            f"{self.flow.title}: rhs must return a tensor of the state's shape ({size},); it returned {said(found)}"
        )

    def jvp(self, t: float, y: Vector, v: Vector, out: Vector) -> None:
        """The Jacobian at (t, y) times v, written into out.

        Raises:
            TypeError: the flow has no product.
        """
        product = self._in_force.jvp
        if product is None:
            raise TypeError(f"{self.flow.title} has no Jacobian product")
        found = product(t, self.state(y), self.state(v))
        out[:] = found if isinstance(out, Tensor) else to_numpy(found)

    def at_start(self, t: float, y: Vector) -> Tensor:
        """The field in force at the start, there, in the problem's dtype. Not counted."""
        return self._vector(self.flow.during(0).rhs(t, self.state(y)), len(y))

    def enter(self, piece: int) -> None:
        """From here on the field is that of `flow.during(piece)`."""
        self._in_force = self.flow.during(piece)
        self._writes = _writes(self._in_force)

    def take_count(self) -> int:
        """Right-hand sides since the last call."""
        count, self._count = self._count, 0
        return count

    def theta(self, y: Vector) -> Tensor:
        """The parameters in an engine's state, in float64 whatever the problem computes in.

        Of an array a copy on the CPU; of a tensor the engine's own memory, for as long as the engine lets it be.
        """
        return self.flow.theta_in(y.detach() if isinstance(y, Tensor) else torch.from_numpy(y.copy()))

    def state(self, y: Vector) -> Tensor:
        """As the flow takes it: in the problem's dtype, on its device; a copy where it is not that already."""
        problem = self.flow.problem
        if isinstance(y, Tensor):
            return y.detach().to(device=problem.device, dtype=problem.dtype)
        # Engines hand out arrays that are read-only, reused or freed later, and the model's parameters will be views
        # of what they are given: so it is a copy.
        return torch.from_numpy(y.copy()).to(device=problem.device, dtype=problem.dtype)


def to_numpy(tensor: Tensor) -> Array:
    """On the host, in float64."""
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _writes(flow: Flow) -> bool:
    """Can its right-hand side be written where one wants it (`out`)? One that was overridden without that cannot."""
    return "out" in inspect.signature(flow.rhs).parameters
