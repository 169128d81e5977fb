"""One step after the other in place: by torch.optim where it has the optimiser, else by the optimiser's own map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nm_ode.optimizers.base import Optimizer

_THEIRS = "torch."  # before the names of torch's own state


class Stepper(Protocol):
    """An optimiser in motion.

    Attributes:
        theta: shape (P,), moved in place.
    """

    theta: Tensor

    def step(self, gradient: Tensor, lr: float) -> None:
        """θ_k to θ_{k+1}, with ∇L(θ_k) on the step's batch."""
        ...

    def state(self, gradient: Tensor) -> Tensor:
        """The whole state before a step; `gradient`: of the first step, for the initial state."""
        ...

    def memory(self, name: str) -> Tensor:
        """A part of the state after a step; KeyError if there is none of this name."""
        ...

    def snapshot(self) -> dict[str, Tensor]:
        """All that the next step depends on, bit for bit; views of what the next step writes to."""
        ...

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Go on from what `snapshot` gave."""
        ...


def start(optimizer: Optimizer, theta: Tensor, state: Tensor | None = None) -> Stepper:
    """A stepper at theta, shape (P,), of which it takes a copy.

    Args:
        state: the whole state to go on from; None for an optimiser at rest.
    """
    theta = theta.detach().clone()
    twin = optimizer.torch_optimizer([theta.requires_grad_()])
    if twin is None:
        return _MapStepper(optimizer, theta.detach(), state)
    return _TorchStepper(optimizer, twin, theta, state)


class _TorchStepper:
    def __init__(
        self, optimizer: Optimizer, twin: torch.optim.Optimizer, parameter: Tensor, state: Tensor | None
    ) -> None:
        self._optimizer, self._twin, self._parameter = optimizer, twin, parameter
        self._at_rest = state is None
        self.theta = parameter.detach()
        if state is not None:
            optimizer.to_torch(twin, parameter, state)

    def step(self, gradient: Tensor, lr: float) -> None:
        self._parameter.grad = gradient
        self._twin.param_groups[0]["lr"] = lr
        self._twin.step()
        self._at_rest = False

    def state(self, gradient: Tensor) -> Tensor:
        if self._at_rest:
            return self._optimizer.init(self.theta, gradient).clone()
        return self._optimizer.from_torch(self._twin, self._parameter)

    def memory(self, name: str) -> Tensor:
        found: Tensor = self._twin.state[self._parameter][self._optimizer.torch_memory[name]]
        return found

    def snapshot(self) -> dict[str, Tensor]:
        # As torch has it, not as one vector: torch's step count has a dtype and a device of its own.
        found = {
            _THEIRS + name: torch.as_tensor(part) for name, part in self._twin.state[self._parameter].items()
        }
        return {"theta": self.theta, **found}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        self.theta.copy_(snapshot["theta"])
        theirs = {
            name.removeprefix(_THEIRS): part for name, part in snapshot.items() if name.startswith(_THEIRS)
        }
        # Vectors lie where theta lies; a step count stays on the host.
        self._twin.state[self._parameter].update(
            {name: part.to(self.theta.device if part.ndim else part.device) for name, part in theirs.items()}
        )
        self._at_rest = False


class _MapStepper:
    def __init__(self, optimizer: Optimizer, theta: Tensor, state: Tensor | None) -> None:
        self._optimizer, self._n = optimizer, len(theta)
        self._state = None if state is None else state.clone()
        self.theta = theta if self._state is None else self._state[: self._n]

    def step(self, gradient: Tensor, lr: float) -> None:
        if self._state is None:
            # From here on theta is part of the state; whoever holds the old tensor sees it moved too.
            self._state = self._optimizer.init(self.theta, gradient).clone()
        optimizer: Any = self._optimizer
        if lr != optimizer.lr:
            optimizer = replace(optimizer, lr=lr)
        self._state += optimizer.increment(self._state, gradient)
        self.theta.copy_(self._state[: self._n])

    def state(self, gradient: Tensor) -> Tensor:
        if self._state is None:
            return self._optimizer.init(self.theta, gradient).clone()
        return self._state.clone()

    def memory(self, name: str) -> Tensor:
        if self._state is None:
            raise KeyError(name)
        return self._optimizer.state_layout(self._n).named(self._state)[name]

    def snapshot(self) -> dict[str, Tensor]:
        return {"theta": self.theta} if self._state is None else {"state": self._state}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        if "state" in snapshot:
            self._state = snapshot["state"].to(self.theta.device).clone()
        self.theta.copy_(snapshot["theta"] if self._state is None else self._state[: self._n])
