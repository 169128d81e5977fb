"""One step after the other in place: by torch.optim where it has the optimiser, else by the optimiser's own map.

In memory a stepper holds the optimiser's state and no more, where the twin is one of torch's own: their steps make some
vectors of the parameter's size, so a long theta is given to them in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nm_ode.optimizers.base import Optimizer

_THEIRS = "torch."  # before the names of torch's own state
_PIECE = 2**20  # entries: what torch makes on the way stays small, and in a processor's cache
_ENTRY_BY_ENTRY = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
"""Of torch's own classes those that move each entry by its own gradient and memory alone."""


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

    def state_itself(self, gradient: Tensor) -> Tensor:
        """`state`, which may be the stepper's own memory: it holds until the next step."""
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
    theta = theta.detach()
    if len(theta) > _PIECE and theta.device.type == "cpu":
        pieces = _in_pieces(optimizer, theta, state)
        if pieces is not None:
            return pieces
    theta = theta.clone()
    twin = optimizer.torch_optimizer([theta.requires_grad_()])
    if twin is None:
        return _MapStepper(optimizer, theta.detach(), state)
    return _TorchStepper(optimizer, twin, theta, state)


def _in_pieces(optimizer: Optimizer, theta: Tensor, state: Tensor | None) -> Stepper | None:
    """None where theta cannot be given to the twin in pieces."""
    layout = optimizer.state_layout(len(theta))
    known = {name for name, size in layout.parts[1:] if size in (1, len(theta))} & set(optimizer.torch_memory)
    if known != set(layout.names[1:]) or type(optimizer).from_torch is not Optimizer.from_torch:
        return None
    whole = torch.empty(layout.size, dtype=theta.dtype, device=theta.device)
    pieces = [piece.requires_grad_() for piece in layout.split(whole)[0].split(_PIECE)]
    twin = optimizer.torch_optimizer(pieces)
    if twin is None or type(twin) not in _ENTRY_BY_ENTRY:
        return None
    return _PiecewiseStepper(optimizer, twin, pieces, whole, theta, state)


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
        return self.state_itself(gradient).clone()

    def state_itself(self, gradient: Tensor) -> Tensor:
        if self._at_rest:
            return self._optimizer.init(self.theta, gradient)
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


class _PiecewiseStepper:
    """A twin whose parameters are pieces of theta. Its memory is moved into one vector as soon as it is there."""

    def __init__(
        self,
        optimizer: Optimizer,
        twin: torch.optim.Optimizer,
        pieces: list[Tensor],
        whole: Tensor,
        theta: Tensor,
        state: Tensor | None,
    ) -> None:
        self._optimizer, self._twin, self._pieces, self._whole = optimizer, twin, pieces, whole
        layout = optimizer.state_layout(len(theta))
        self._parts = layout.named(whole)
        self.theta = next(iter(self._parts.values()))
        self.theta.copy_(theta if state is None else layout.split(state)[0])
        vectors = [name for name, part in self._parts.items() if len(part) == len(theta)][1:]
        self._vectors = {optimizer.torch_memory[name]: name for name in vectors}
        self._numbers = {
            optimizer.torch_memory[name]: name for name in layout.names[1:] if name not in vectors
        }
        self._views = {theirs: self._parts[name].split(_PIECE) for theirs, name in self._vectors.items()}
        self._at_rest = state is None
        if state is not None:
            given = layout.split(state)
            for i, piece in enumerate(pieces):
                mine = [part.split(_PIECE)[i] if len(part) == len(theta) else part for part in given]
                optimizer.to_torch(twin, piece, torch.cat(mine))
                self._move_in(i)

    def step(self, gradient: Tensor, lr: float) -> None:
        self._twin.param_groups[0]["lr"] = lr
        parts = gradient.split(_PIECE)
        for i, (piece, part) in enumerate(zip(self._pieces, parts, strict=True)):
            piece.grad = part
            if self._at_rest:
                # Their memory is made in this step: one after the other, each moved before the next.
                self._twin.step()
                self._move_in(i)
                piece.grad = None
        if not self._at_rest:
            self._twin.step()
            for i in range(len(parts)):
                self._move_in(i)
        self._at_rest = False

    def _move_in(self, i: int) -> None:
        theirs = self._twin.state[self._pieces[i]]
        for name, views in self._views.items():
            if theirs.get(name) is not None and theirs[name] is not views[i]:
                views[i].copy_(theirs[name])
                theirs[name] = views[i]

    def state(self, gradient: Tensor) -> Tensor:
        return self.state_itself(gradient).clone()

    def state_itself(self, gradient: Tensor) -> Tensor:
        if self._at_rest:
            return self._optimizer.init(self.theta, gradient)
        for theirs, name in self._numbers.items():
            self._parts[name].fill_(self._twin.state[self._pieces[0]][theirs])
        return self._whole

    def memory(self, name: str) -> Tensor:
        theirs = self._optimizer.torch_memory[name]
        there: Tensor = self._twin.state[self._pieces[0]][theirs]
        return self._parts[name] if theirs in self._vectors else there

    def snapshot(self) -> dict[str, Tensor]:
        found = {"theta": self.theta}
        for name, part in self._twin.state[self._pieces[0]].items():
            if name in self._vectors:
                found[_THEIRS + name] = self._parts[self._vectors[name]]
            elif torch.as_tensor(part).ndim:  # one that is in no state of ours
                found[_THEIRS + name] = torch.cat([self._twin.state[piece][name] for piece in self._pieces])
            else:
                found[_THEIRS + name] = torch.as_tensor(part)
        return found

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        self.theta.copy_(snapshot["theta"])
        for name, part in snapshot.items():
            theirs = name.removeprefix(_THEIRS)
            if theirs == name:
                continue
            for i, piece in enumerate(self._pieces):
                self._twin.state[piece][theirs] = part.split(_PIECE)[i] if part.ndim else part.clone()
        for i in range(len(self._pieces)):
            self._move_in(i)
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
        return self.state_itself(gradient).clone()

    def state_itself(self, gradient: Tensor) -> Tensor:
        return self._optimizer.init(self.theta, gradient) if self._state is None else self._state

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


def kept(state: Tensor) -> Tensor:
    """A copy. Of a long one it is on the host, and where the state is 0, as a memory at rest is, it takes no memory."""
    if len(state) <= _PIECE:
        return state.clone()
    held = torch.from_numpy(
        np.zeros(len(state), torch.empty(0, dtype=state.dtype, device="cpu").numpy().dtype)
    )
    for copy, piece in zip(held.split(_PIECE), state.split(_PIECE), strict=True):
        if bool(piece.any()):
            copy.copy_(piece)
    return held
