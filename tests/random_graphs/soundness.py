"""The oracle of soundness: the model itself after each charge's finite transformation, on batches of other numbers.

Nothing of the graph or the rules is used but what they found; the verification inside nm_ode is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nm_ode.parameters import Layout
from nm_ode.symmetries import ChargeMeter
from nm_ode.symmetries.other_batches import lost_elsewhere
from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.symmetry import Symmetry
from nm_ode.symmetries.traced_loss import TracedLoss
from tests.oracles.symmetry import carried
from tests.random_graphs.program import Network, Program, batch_of, loss_of

LOSS, CONSTRAINT = 1e-7, 1e-8
"""Relative changes above which a symmetry is not there; rounding is far below."""

EPSILON = 1e-30
"""Of normalisations: what they absorb up to their ε is then absorbed to rounding."""


@dataclass(frozen=True)
class Unsound:
    """A symmetry that was found and does not hold.

    Attributes:
        loss: |L(exp(t ξ) θ) − L(θ)|, relative.
        constraint: |⟨g, ξ⟩| / (‖g‖ ‖ξ‖).
    """

    name: str
    kind: str
    loss: float
    constraint: float

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}): loss {self.loss:.1e}, constraint {self.constraint:.1e}"


@dataclass(frozen=True)
class Judged:
    """What was found in a program, and what of it is wrong."""

    symmetries: tuple[Symmetry, ...]
    unsound: tuple[Unsound, ...]
    decided: int
    """Draws at which loss and gradient were finite."""


def traced(program: Program, seed: int = 0, eps: float = 1e-5) -> TracedLoss:
    """The network's graph, of an example in which not all integers are."""
    batch = batch_of(8, torch.Generator().manual_seed(seed), integers=2)
    # A graph for batches of any size costs as much again.
    return TracedLoss(program.network(eps), loss_of, batch, sizes=_of_any_size(seed), stops=program.stops)


def _of_any_size(seed: int) -> bool:
    return seed % 4 == 0


def judged(program: Program, *, seed: int = 0, draws: int = 2) -> Judged:
    """The rules' own findings, and which of them do not hold."""
    loss = traced(program, seed)
    symmetries = discover(loss.graph)[0]
    model = program.network(EPSILON)
    return _judged(loss, program, model, symmetries, seed, draws)


def _judged(
    loss: TracedLoss, program: Program, model: Network, symmetries: Sequence[Symmetry], seed: int, draws: int
) -> Judged:
    if not symmetries:
        return Judged((), (), draws)
    generator = torch.Generator().manual_seed(seed + 1)
    other = program.network(1e4 * EPSILON)
    meter = ChargeMeter(loss.layout, symmetries)
    elsewhere = lost_elsewhere(loss, symmetries)
    worst = {s.name: (0.0, 0.0) for s in symmetries}
    decided = 0
    for draw in range(2 * draws):
        samples = (8, 11, 5, 7)[draw % 4] if loss.sizes else 8
        batch, theta = batch_of(samples, generator), _theta(program, loss.layout, generator)
        before, gradient = _loss_and_gradient(model, loss.layout, theta, batch)
        if not (abs(before) < 1e8 and bool(gradient.isfinite().all()) and float(gradient.norm()) < 1e8):
            continue
        if not _is_regular(program, model, loss.layout, theta, batch, gradient, generator):
            continue
        if not _is_normal(other, loss.layout, theta, batch, before, gradient):
            continue
        decided += 1
        constraint = meter.constraint(gradient, theta)
        size = meter.generator_norm(theta) * max(float(gradient.norm()), 1e-3 * abs(before))
        for s in symmetries:
            if s.name in elsewhere and samples != 8:
                continue
            where = meter.slices[s.name]
            violated = float((constraint[where].abs() / size[where].clamp_min(1e-300)).max())
            step = torch.rand(s.count, dtype=torch.float64, generator=generator) - 0.5
            after = _loss(model, loss.layout, carried(theta, meter, s, step), batch)
            changed = abs(after - before) / max(abs(before), 1e-6)
            worst[s.name] = (max(worst[s.name][0], changed), max(worst[s.name][1], violated))
        if decided == draws:
            break
    wrong = [
        Unsound(s.name, s.kind, *worst[s.name])
        for s in symmetries
        if not (worst[s.name][0] < LOSS and worst[s.name][1] < CONSTRAINT)
    ]
    return Judged(tuple(symmetries), tuple(wrong), decided)


def _is_regular(
    program: Program,
    model: Network,
    layout: Layout,
    theta: Tensor,
    batch: tuple[Tensor, ...],
    gradient: Tensor,
    generator: torch.Generator,
) -> bool:
    """Is autograd's gradient the loss's slope? Not where nothing is divided by nothing."""
    text = program.source()
    if "detach" in text or "without_gradient" in text or "padding_idx" in text:
        return True  # the gradient that trains is another one there
    along = torch.randn(theta.shape, dtype=theta.dtype, generator=generator)
    step = 1e-6 / float(along.norm())
    ends = [_loss(model, layout, theta + sign * step * along, batch) for sign in (1, -1)]
    slope, expected = (ends[0] - ends[1]) / (2 * step), float(gradient @ along)
    return abs(slope - expected) <= 1e-2 * float(gradient.norm() * along.norm())


def _is_normal(
    other: Network, layout: Layout, theta: Tensor, batch: tuple[Tensor, ...], loss: float, gradient: Tensor
) -> bool:
    """Are loss and gradient the same with another ε? Not where what is normalised is one number: then it is rounding
    that is divided by the ε (a group of one entry, a mean taken from what is constant)."""
    loss_there, there = _loss_and_gradient(other, layout, theta, batch)
    same_loss = abs(loss_there - loss) <= 0.1 * LOSS * max(abs(loss), 1e-6)
    return same_loss and float((there - gradient).norm()) <= 0.1 * CONSTRAINT * float(gradient.norm())


def _theta(program: Program, layout: Layout, generator: torch.Generator) -> Tensor:
    """Parameters of any sign, but for rows of padding, which are zero and stay so."""
    pieces = []
    for slot in layout.slots:
        own = program.parameters[slot.name]
        value = own + 0.5 * torch.randn(own.shape, dtype=own.dtype, generator=generator)
        if slot.name in program.padding:
            value[0] = 0
        pieces.append(value.reshape(-1))
    return torch.cat(pieces)


def _loss(model: Network, layout: Layout, theta: Tensor, batch: tuple[Tensor, ...]) -> float:
    with torch.no_grad():
        return float(_evaluated(model, layout, theta, lambda: model(*batch)))


def _loss_and_gradient(
    model: Network, layout: Layout, theta: Tensor, batch: tuple[Tensor, ...]
) -> tuple[float, Tensor]:
    model.zero_grad()

    def run() -> Tensor:
        loss: Tensor = model(*batch)
        if loss.requires_grad:
            loss.backward()
        return loss

    loss = _evaluated(model, layout, theta, run)
    pieces = []
    for slot in layout.slots:
        gradient = model.get_parameter(slot.name).grad
        pieces.append(torch.zeros(slot.size) if gradient is None else gradient.reshape(-1))
    return float(loss.detach()), torch.cat(pieces).double()


def _evaluated(model: nn.Module, layout: Layout, theta: Tensor, run: Callable[[], Tensor]) -> Tensor:
    """With these parameters, the buffers afterwards as before, and the same random numbers each time."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for slot in layout.slots:
        model.get_parameter(slot.name).data = theta[slot.slice].view(slot.shape).clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        result = run()
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return result
