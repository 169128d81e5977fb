"""The gradient of a traced loss at one point, summed up parameter by parameter: it is never there as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Parts, Slot
from nm_ode.symmetries.extended_loss import ExtendedLoss
from nm_ode.symmetries.meter import ChargeMeter
from nm_ode.symmetries.own_gradient import sketch

AT_ONCE = 20_000_000
"""Entries of the gradient that are there at once, but for those of one parameter."""


@dataclass(frozen=True, eq=False)
class Point:
    """Random parameters and batch, the seed of the dropout, and how the batch was drawn."""

    theta: Parts
    tensors: tuple[Tensor, ...]
    seed: int
    how: str


@dataclass(frozen=True, eq=False)
class GraphGradient:
    """What is made of the gradient g.

    Attributes:
        loss: at the point.
        sketches: as of `OwnGradient`.
        squares: parameter → ‖g‖² of its entries.
        constraint: ⟨g, ξ⟩ of each charge of a meter.
        by_epsilon: the derivative by each ε.
    """

    loss: float
    sketches: dict[str, Tensor]
    squares: dict[str, float]
    constraint: Tensor
    by_epsilon: tuple[Tensor, ...]


def look(extended: ExtendedLoss, at: Point, meter: ChargeMeter) -> GraphGradient:
    """The graph's loss and gradient; of a large model in several backward passes, each of some parameters."""
    parameters = {name: piece.detach().requires_grad_() for name, piece in at.theta.items()}
    epsilons = [e.detach().requires_grad_() for e in extended.epsilons]
    loss = extended(parameters, epsilons, at.tensors, at.seed)
    constraint = torch.zeros(meter.count, dtype=torch.float64)
    sketches: dict[str, Tensor] = {}
    squares: dict[str, float] = {}
    by_epsilon = extended.gradient(loss, epsilons, again=True)
    for some in _chunks(extended.layout.slots):
        found = extended.gradient(loss, [parameters[slot.name] for slot in some], again=True)
        gradient = Parts(some, [one.to_dense() if one.is_sparse else one for one in found], loss.detach())
        del found
        for name, piece in gradient.items():
            sketches[name] = sketch(name, piece)
            squares[name] = float(piece.norm()) ** 2
        constraint += _of(meter, extended.layout, set(gradient)).constraint(gradient, at.theta)
        del gradient
    return GraphGradient(float(loss.detach()), sketches, squares, constraint, by_epsilon)


def _of(meter: ChargeMeter, layout: Layout, names: set[str]) -> ChargeMeter:
    """The same charges, of which these parameters' shares are measured."""
    if names == {slot.name for slot in layout.slots}:
        return meter
    return ChargeMeter(
        layout,
        [
            replace(s, parts=tuple(part for part in s.parts if part.parameter in names))
            for s in meter.symmetries
        ],
    )


def _chunks(slots: Sequence[Slot]) -> Iterator[list[Slot]]:
    some: list[Slot] = []
    for slot in slots:
        if some and sum(one.size for one in some) + slot.size > AT_ONCE:
            yield some
            some = []
        some.append(slot)
    if some:
        yield some
