"""Verification: the gradient's and the Hessian's constraint of each symmetry, measured (docs/theory.md §2.1).

A normalisation's ε breaks the scale symmetry of what enters it, by an amount that is known: multiplying the input by
α and ε by α² leaves the loss as it is, so ⟨g, ξ⟩ = −2ε ∂L/∂ε exactly. With the ε's as further variables the
constraints hold to rounding, and the residual without them is explained to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.extended_loss import ExtendedLoss, flat, leaves
from nm_ode.symmetries.graph import MODEL, LossModule
from nm_ode.symmetries.meter import ChargeMeter
from nm_ode.symmetries.proofs import EpsilonLink
from nm_ode.symmetries.symmetry import Symmetry
from nm_ode.symmetries.traced_loss import TracedLoss

TOLERANCE = 1e-10
_FAINT = 1e-4  # of the whole gradient, below which a layer's own gradient is rounding to the tolerance


@dataclass(frozen=True)
class Check:
    """What was measured of one symmetry, the worst over its charges and all draws.

    Attributes:
        gradient: |⟨g, ξ⟩| / (‖g‖ ‖ξ‖), with g of the layers that take part (at least 1e-4 of the whole gradient).
        epsilon_share: the same for what the normalisations' ε explains, −2ε ∂L/∂ε.
        unexplained: the same for what is left.
        hessian: ‖Hξ + ∂_ξ g‖ / (‖Hξ‖ + ‖∂_ξ g‖) for a random combination of the charges of this kind.
    """

    gradient: float
    epsilon_share: float
    unexplained: float
    hessian: float

    @property
    def holds(self) -> bool:
        return self.unexplained < TOLERANCE and self.hessian < TOLERANCE

    def explain(self) -> str:
        return (
            f"its gradient constraint is violated by {self.unexplained:.1e} and its Hessian constraint by "
            f"{self.hessian:.1e}, relative"
        )


def verify(
    loss: TracedLoss, symmetries: Sequence[Symmetry], links: Sequence[EpsilonLink], *, draws: int, seed: int
) -> dict[str, Check]:
    """Both constraints at random parameters and batches, in float64.

    Raises:
        SymmetryError: the traced graph does not compute what the model computes.
    """
    if not symmetries:
        return {}
    meter = ChargeMeter(loss.layout, symmetries)
    extended = ExtendedLoss(loss, links)
    generator = torch.Generator().manual_seed(seed)
    worst = {s.name: [0.0, 0.0, 0.0, 0.0] for s in symmetries}
    for draw in range(max(1, draws)):
        at = _Point(loss.drawn_theta(generator), loss.drawn_tensors(generator), draw)
        _require_same_loss(loss, extended, at)
        gradient = _gradient_residuals(extended, meter, at)
        for s in symmetries:
            for i, residuals in enumerate(gradient):
                worst[s.name][i] = max(worst[s.name][i], float(residuals[meter.slices[s.name]].max()))
        if draw == 0:
            for name, residual in _hessian_residuals(extended, meter, at, generator).items():
                worst[name][3] = residual
    return {name: Check(*values) for name, values in worst.items()}


@dataclass(frozen=True, eq=False)
class _Point:
    """Random parameters and batch, and the seed of the dropout."""

    theta: Tensor
    tensors: tuple[Tensor, ...]
    seed: int


def _gradient_residuals(
    extended: ExtendedLoss, meter: ChargeMeter, at: _Point
) -> tuple[Tensor, Tensor, Tensor]:
    """Relative ⟨g, ξ⟩ of each charge, the share of the ε's, and what neither explains."""
    layout, theta = extended.layout, at.theta
    parameters = leaves(layout, theta)
    epsilons = [e.detach().requires_grad_() for e in extended.epsilons]
    loss = extended(parameters, epsilons, at.tensors, at.seed)
    found = torch.autograd.grad(loss, [*parameters.values(), *epsilons], materialize_grads=True)
    gradient, by_epsilon = flat(found[: len(parameters)]), found[len(parameters) :]
    constraint = meter.constraint(gradient, theta)
    share = epsilon_constraint(extended.links, extended.epsilons, by_epsilon, meter.count)
    scale = meter.generator_norm(theta)
    whole = gradient.norm()
    of_layer = dict(zip(layout.layers, layout.layer_norms(gradient), strict=True))
    for s in meter.symmetries:
        layers = dict.fromkeys(layout[parameter].layer for parameter in s.parameters)
        norm = torch.stack([of_layer[layer] for layer in layers]).norm()
        # Where a layer's gradient is all but zero (before a LayerNorm of two features, say), what it is made of is not.
        scale[meter.slices[s.name]] *= torch.maximum(norm, _FAINT * whole)
    # A layer that the loss does not feel at this draw (all its units dead) has nothing to violate.
    scale = scale.clamp_min(torch.finfo(theta.dtype).tiny)
    return tuple((part / scale).abs() for part in (constraint, share, constraint - share))  # type: ignore[return-value]


def epsilon_constraint(
    links: Sequence[EpsilonLink], epsilons: Sequence[Tensor], by_epsilon: Sequence[Tensor], count: int
) -> Tensor:
    """⟨g, ξ⟩ as the ε's predict it: −Σ power · ε ∂L/∂ε for each charge."""
    share = torch.zeros(count, dtype=torch.float64)
    for link, epsilon, derivative in zip(links, epsilons, by_epsilon, strict=True):
        products = (epsilon.detach() * derivative).reshape(-1)
        share.index_add_(0, link.charges, -link.powers * products[link.groups])
    return share


def _hessian_residuals(
    extended: ExtendedLoss, meter: ChargeMeter, at: _Point, generator: torch.Generator
) -> dict[str, float]:
    """‖Hξ + Bg‖ relative, for a random combination of the charges of each kind; of each symmetry where that fails."""
    layout, theta = extended.layout, at.theta
    parameters = leaves(layout, theta)
    leaf = list(parameters.values())
    epsilons = [e.detach().requires_grad_() for e in extended.epsilons]
    loss = extended(parameters, epsilons, at.tensors, at.seed)
    first = torch.autograd.grad(loss, [*leaf, *epsilons], create_graph=True, materialize_grads=True)
    gradients, by_epsilon = first[: len(leaf)], first[len(leaf) :]
    gradient = flat([g.detach() for g in gradients])

    def hessian_times(direction: Tensor, moves: Sequence[Tensor]) -> Tensor:
        pieces = leaves(layout, direction)
        total = sum(
            (
                (g * move).sum()
                for g, move in zip([*gradients, *by_epsilon], [*pieces.values(), *moves], strict=True)
                if g.requires_grad
            ),
            start=torch.zeros((), dtype=theta.dtype),
        )
        if not total.requires_grad:
            return torch.zeros_like(theta)
        return flat(torch.autograd.grad(total, leaf, retain_graph=True, materialize_grads=True))

    def residual(names: Sequence[str]) -> float:
        coefficients = torch.zeros(meter.count, dtype=torch.float64)
        for name in names:
            where = meter.slices[name]
            coefficients[where] = torch.randn(
                where.stop - where.start, dtype=torch.float64, generator=generator
            )
        along = meter.apply(theta, coefficients) + meter.shift(theta, coefficients)
        # How the ε's move with it, so that the loss stays exactly.
        moves = []
        for link, epsilon in zip(extended.links, extended.epsilons, strict=True):
            factor = torch.zeros(epsilon.numel(), dtype=torch.float64)
            factor.index_add_(0, link.groups, link.powers * coefficients[link.charges])
            moves.append(epsilon * factor.reshape(epsilon.shape))
        product = hessian_times(along, moves)
        expected = meter.apply(gradient, coefficients)
        # Hξ of a translation is zero, and so may ∂_ξ g be: then H in another direction is what to compare with.
        size = max(float(product.norm() + expected.norm()), 1e-3 * reference * float(along.norm()))
        return float((product + expected).norm()) / size if size > 0 else 0.0

    direction = torch.randn(theta.shape, dtype=theta.dtype, generator=generator)
    still = [torch.zeros_like(e) for e in extended.epsilons]
    reference = float(hessian_times(direction, still).norm()) / float(direction.norm())
    found: dict[str, float] = {}
    for kind in dict.fromkeys(s.kind for s in meter.symmetries):
        names = [s.name for s in meter.symmetries if s.kind == kind]
        together = residual(names)
        if together < TOLERANCE:
            found |= dict.fromkeys(names, together)
        else:
            found |= {name: residual([name]) for name in names}
    return found


def _require_same_loss(loss: TracedLoss, extended: ExtendedLoss, at: _Point) -> None:
    model, whole = loss.model, LossModule(loss.model, loss.objective, loss.batch)
    parameters = leaves(loss.layout, at.theta)
    given = {MODEL + name: parameter for name, parameter in parameters.items()}
    given |= {name: buffer.clone() for name, buffer in whole.named_buffers()}  # running statistics stay
    with torch.no_grad():
        traced = float(extended(parameters, extended.epsilons, at.tensors, at.seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(at.seed)
            direct = float(functional_call(whole, given, at.tensors))
    if not math.isfinite(direct):
        raise SymmetryError(
            f"the loss is {direct} near the model's own parameters, so that nothing can be verified: are they finite?"
        )
    random = any(
        isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p > 0 for m in model.modules()
    )
    if not abs(traced - direct) <= 1e-9 * max(abs(direct), 1e-300) and not random:
        raise SymmetryError(
            f"the traced graph gives the loss {traced:.12g} where the model gives {direct:.12g}: the model's "
            "operations depend on the values of tensors, so its graph proves nothing"
        )
