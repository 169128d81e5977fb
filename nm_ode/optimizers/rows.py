"""Many members' optimisers, one step of each at once: equal to as many steppers, to rounding."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from nm_ode.optimizers.base import Optimizer, StateLayout

_NUMBERS = 2**17
"""Of the states that move together: what they make on the way stays in a processor's caches."""


class Rows:
    """Optimisers in motion, each with a row of parameters.

    Some members whose states have the same parts move together.

    Args:
        optimizers: one for each of M members, all of one class.
        thetas: shape (M, P), of which it takes a copy.
        states: whole states to go on from, one for each member; None for optimisers at rest.

    Attributes:
        theta: shape (M, P), moved in place.
    """

    def __init__(
        self, optimizers: Sequence[Optimizer], thetas: Tensor, states: Sequence[Tensor] | None = None
    ) -> None:
        self.theta = thetas.detach().clone(memory_format=torch.contiguous_format)
        alike: dict[Any, list[int]] = {}
        for i, optimizer in enumerate(optimizers):
            alike.setdefault(_kind(optimizer), []).append(i)
        self._groups = [
            _Group(
                some,
                _rows(some),
                _stacked([optimizers[i] for i in some], self.theta),
                None if states is None else torch.stack([states[i] for i in some]),
            )
            for members in alike.values()
            for some in _parts(members, optimizers[members[0]].state_layout(self.theta.shape[1]).size)
        ]
        self._place = {i: (group, row) for group in self._groups for row, i in enumerate(group.members)}

    def step(self, gradients: Tensor, lr: NDArray[np.float64]) -> Tensor:
        """θ_k to θ_{k+1} of every member; what was added to θ, shape (M, P).

        Args:
            gradients: shape (M, P), ∇L(θ_k) of each member on its batch.
            lr: shape (M,), of this step.
        """
        update = torch.empty_like(self.theta)
        size = self.theta.shape[1]
        for group in self._groups:
            rows, before = group.rows, self.theta[group.rows]
            group.step(before, gradients[rows], lr)
            assert group.state is not None
            after = group.state[:, :size]
            update[rows] = after - before
            self.theta[rows] = after
        return update

    def states(self, gradients: Tensor) -> Tensor:
        """The whole states before a step, shape (M, S), NaN where a member's has fewer numbers than another's.

        Args:
            gradients: of the first step, for the initial states.
        """
        found = [group.states(self.theta[group.rows], gradients[group.rows]) for group in self._groups]
        whole = self.theta.new_full((len(self.theta), max(one.shape[1] for one in found)), float("nan"))
        for group, one in zip(self._groups, found, strict=True):
            whole[group.rows, : one.shape[1]] = one
        return whole

    def state(self, member: int, gradients: Tensor) -> Tensor:
        """One member's whole state before a step, a copy; `gradients` as of `states`."""
        group, row = self._place[member]
        return group.states(self.theta[group.rows], gradients[group.rows])[row].clone()

    def memory(self, member: int, name: str) -> Tensor:
        """A part of one member's state; KeyError if there is none of this name, or no step was taken."""
        group, row = self._place[member]
        if group.state is None:
            raise KeyError(name)
        layout: StateLayout = group.optimizer.state_layout(self.theta.shape[1])
        return layout.named(group.state[row])[name]

    def snapshot(self) -> dict[str, Tensor]:
        """All that the next step depends on, bit for bit; views of what the next step writes to."""
        states = {f"states.{i}": group.state for i, group in enumerate(self._groups)}
        return {"theta": self.theta, **{name: one for name, one in states.items() if one is not None}}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Go on from what `snapshot` gave."""
        self.theta.copy_(snapshot["theta"])
        for i, group in enumerate(self._groups):
            if f"states.{i}" in snapshot:
                group.state = snapshot[f"states.{i}"].to(self.theta.device).clone()


@dataclass(eq=False)
class _Group:
    """Members that move together.

    Attributes:
        members: their numbers.
        rows: their rows of a matrix of all members.
        optimizer: of all of them; its hyperparameters are numbers, or tensors (m, 1) where members differ.
        state: shape (m, S); None before the first step of optimisers at rest.
    """

    members: list[int]
    rows: Any
    optimizer: Any
    state: Tensor | None

    def step(self, theta: Tensor, gradients: Tensor, lr: NDArray[np.float64]) -> None:
        if self.state is None:
            self.state = self._at_rest(theta, gradients).clone()
        optimizer, own = copy.copy(self.optimizer), lr[self.members]
        column = isinstance(optimizer.lr, Tensor)
        of_step = torch.from_numpy(own).to(theta)[:, None] if column else float(own[0])
        object.__setattr__(optimizer, "lr", of_step)
        if takes_rows(optimizer):
            self.state += optimizer.increment(self.state, gradients)
        else:
            self.state += _each(optimizer.increment, self.state, gradients)

    def states(self, theta: Tensor, gradients: Tensor) -> Tensor:
        return self._at_rest(theta, gradients) if self.state is None else self.state

    def _at_rest(self, theta: Tensor, gradients: Tensor) -> Tensor:
        init = self.optimizer.init
        found: Tensor = (
            init(theta, gradients) if takes_rows(self.optimizer) else _each(init, theta, gradients)
        )
        return found


def _parts(members: list[int], size: int) -> list[list[int]]:
    """Members that move together, of states of this size."""
    at_once = max(1, _NUMBERS // size)
    return [members[start : start + at_once] for start in range(0, len(members), at_once)]


def _rows(members: list[int]) -> Any:
    """An index of their rows; a slice, which gives views, where they follow one another."""
    first, last = members[0], members[-1]
    if members == list(range(first, last + 1)):
        return slice(first, last + 1)
    return torch.tensor(members, device="cpu")


def takes_rows(optimizer: Optimizer) -> bool:
    """`by_rows` of the class that has the update: a subclass with an update of its own says it for itself."""
    for kind in type(optimizer).__mro__:
        if "increment" in vars(kind) or "init" in vars(kind):
            return bool(vars(kind).get("by_rows", False))
    return False


def _kind(optimizer: Optimizer) -> Any:
    """The same for members whose hyperparameters can stand in one tensor."""
    if not takes_rows(optimizer):
        return optimizer
    return tuple(_pattern(getattr(optimizer, field.name)) for field in fields(optimizer))  # type: ignore[arg-type]


def _pattern(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_pattern, value))
    return value != 0 if isinstance(value, float) else value


def _stacked(optimizers: Sequence[Optimizer], like: Tensor) -> Any:
    """One optimiser, with a tensor (m, 1) for each number in which these differ."""
    first: Any = optimizers[0]
    if all(one == first for one in optimizers):
        return first
    made = copy.copy(first)
    for field in fields(first):
        values = [getattr(one, field.name) for one in optimizers]
        object.__setattr__(made, field.name, _column(values, like))  # its checks are those of numbers
    return made


def _column(values: Sequence[Any], like: Tensor) -> Any:
    if all(value == values[0] for value in values):
        return values[0]
    if isinstance(values[0], tuple):
        return tuple(_column(parts, like) for parts in zip(*values, strict=True))
    return like.new_tensor(values)[:, None]


def _each(function: Any, *rows: Tensor) -> Tensor:
    """A function of vectors, of each row: by vmap where that is possible."""
    if len(rows[0]) > 1:
        try:
            found: Tensor = vmap(function)(*rows)
        except RuntimeError:  # it branches on what it computes
            pass
        else:
            return found
    return torch.stack([function(*row) for row in zip(*rows, strict=True)])
