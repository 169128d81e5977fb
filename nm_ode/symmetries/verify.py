"""Verification: the gradient's and the Hessian's constraint of each symmetry, measured (docs/theory.md §2.1).

A normalisation's ε breaks the scale symmetry of what enters it, by an amount that is known: multiplying the input by
α and ε by α² leaves the loss as it is, so ⟨g, ξ⟩ = −2ε ∂L/∂ε exactly. With the ε's as further variables the
constraints hold to rounding, and the residual without them is explained to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor, nn

from nm_ode.parameters import Parts
from nm_ode.symmetries.check import TOLERANCE, Check
from nm_ode.symmetries.draws import GIVEN, MIXED, WIDE
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.extended_loss import ExtendedLoss, flat, leaves
from nm_ode.symmetries.graph_gradient import GraphGradient, Point, look
from nm_ode.symmetries.layers import layer_scale
from nm_ode.symmetries.meter import ChargeMeter
from nm_ode.symmetries.own_gradient import OwnGradient, differing, own_gradient
from nm_ode.symmetries.proofs import EpsilonLink
from nm_ode.symmetries.refusals import foreseen
from nm_ode.symmetries.second_derivative import missing_derivative
from nm_ode.symmetries.symmetry import Symmetry
from nm_ode.symmetries.traced_loss import TracedLoss

_NEARER = 3  # times that random parameters are drawn nearer to the model's own, where the loss is not finite


@dataclass(frozen=True)
class Verification:
    """What was measured.

    Attributes:
        checks: of each symmetry.
        untrue: parameters that are not trained by the graph's gradient.
        functions: the user's own backward functions in the model.
    """

    checks: dict[str, Check]
    untrue: frozenset[str] = field(default_factory=frozenset)
    functions: tuple[str, ...] = ()


def verify(
    loss: TracedLoss, symmetries: Sequence[Symmetry], links: Sequence[EpsilonLink], *, draws: int, seed: int
) -> Verification:
    """Both constraints at random parameters and batches, and that the graph's gradient is the model's own.

    In float32 at one draw, and without the Hessian's constraint.

    Raises:
        SymmetryError: the traced graph does not compute what the model computes.
    """
    if not symmetries:
        return Verification({})
    precision = loss.precision
    meter = ChargeMeter(loss.layout, symmetries)
    extended = ExtendedLoss(loss, links)
    generator = torch.Generator().manual_seed(seed)
    worst = {s.name: (0.0, 0.0, 0.0) for s in symmetries}
    second: dict[str, float | None] = dict.fromkeys(worst, None)
    untrue, missing = set(loss.hooked), ""
    functions: dict[str, None] = {}
    for draw in range(1 if loss.is_single else max(1, draws)):
        at, own = _point(loss, draw, generator)
        seen = look(extended, at, meter)
        _require_same_loss(loss, own.loss, seen.loss)
        of_layer = layer_scale(loss.layout, seen.squares, precision.faint)
        untrue.update(differing(loss.layout, own.sketches, seen.sketches, of_layer, precision.gradient))
        functions |= dict.fromkeys(own.functions)
        residuals = _gradient_residuals(extended, meter, at.theta, seen, of_layer)
        for s in symmetries:
            a, b, c = (float(residual[meter.slices[s.name]].max()) for residual in residuals)
            worst[s.name] = tuple(map(max, worst[s.name], (a, b, c)))  # type: ignore[assignment]
        if draw == 0 and not loss.is_single:
            try:
                second.update(_hessian_residuals(extended, meter, at, generator))
            except Exception as error:
                missing = missing_derivative(error)
                if not missing:
                    with foreseen(loss.graph.operations):
                        raise
    checks = {name: Check(*worst[name], second[name], missing, precision.constraint) for name in second}
    return Verification(checks, frozenset(untrue), tuple(functions))


def first_look(loss: TracedLoss, extended: ExtendedLoss, generator: torch.Generator) -> tuple[str, list[str]]:
    """How batches can be drawn, and the parameters that are not trained by the graph's gradient.

    Raises:
        SymmetryError: the loss cannot be evaluated.
    """
    at, own = _point(loss, 0, generator)
    seen = look(extended, at, ChargeMeter(loss.layout, ()))
    of_layer = layer_scale(loss.layout, seen.squares, loss.precision.faint)
    untrue = differing(loss.layout, own.sketches, seen.sketches, of_layer, loss.precision.gradient)
    return at.how, sorted({*loss.hooked, *untrue})


def _point(loss: TracedLoss, draw: int, generator: torch.Generator) -> tuple[Point, OwnGradient]:
    """The first batch of those that can be drawn at which the model has a finite loss."""
    for nearer, how in product(range(_NEARER), (WIDE, MIXED, GIVEN)):
        if how == WIDE:
            theta = loss.drawn_parts(generator, spread=0.3 / 4**nearer)
        at = Point(theta, loss.drawn_tensors(how, generator), draw, how)
        try:
            own = own_gradient(loss, at.theta, at.tensors, at.seed)
        except SymmetryError:
            raise
        except Exception as error:  # numbers that the model or the loss does not take
            if how == GIVEN and nearer == _NEARER - 1:
                raise SymmetryError(
                    f"the loss cannot be evaluated near the model's own parameters ({type(error).__name__}: {error})"
                ) from error
            continue
        if own.is_finite:
            return at, own
    raise SymmetryError(
        f"the loss is {own.loss} near the model's own parameters, or its gradient is not finite, so that nothing can "
        "be verified: are they finite?"
    )


def _gradient_residuals(
    extended: ExtendedLoss,
    meter: ChargeMeter,
    theta: Parts,
    seen: GraphGradient,
    of_layer: Mapping[str, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Relative ⟨g, ξ⟩ of each charge, the share of the ε's, and what neither explains."""
    layout = extended.layout
    constraint = seen.constraint
    share = epsilon_constraint(extended.links, extended.epsilons, seen.by_epsilon, meter.count)
    scale = meter.generator_norm(theta)
    # Where a layer's gradient is all but zero (before a LayerNorm of two features, say), what it is made of is not.
    for s in meter.symmetries:
        layers = dict.fromkeys(layout[parameter].layer for parameter in s.parameters)
        scale[meter.slices[s.name]] *= math.hypot(*(of_layer[layer] for layer in layers))
    # A layer that the loss does not feel at this draw (all its units dead) has nothing to violate.
    scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    return tuple((part / scale).abs() for part in (constraint, share, constraint - share))  # type: ignore[return-value]


def epsilon_constraint(
    links: Sequence[EpsilonLink], epsilons: Sequence[Tensor], by_epsilon: Sequence[Tensor], count: int
) -> Tensor:
    """⟨g, ξ⟩ as the ε's predict it: −Σ power · ε ∂L/∂ε for each charge."""
    share = torch.zeros(count, dtype=torch.float64)
    for link, epsilon, derivative in zip(links, epsilons, by_epsilon, strict=True):
        products = (epsilon.detach() * derivative).reshape(-1)
        share.index_add_(0, link.charges, -link.powers * products[link.groups].double())
    return share


def _hessian_residuals(
    extended: ExtendedLoss, meter: ChargeMeter, at: Point, generator: torch.Generator
) -> dict[str, float]:
    """‖Hξ + Bg‖ relative, for a random combination of the charges of each kind; of each symmetry where that fails."""
    layout, theta = extended.layout, at.theta.flat()
    parameters = leaves(layout, theta)
    leaf = list(parameters.values())
    epsilons = [e.detach().requires_grad_() for e in extended.epsilons]
    loss = extended(parameters, epsilons, at.tensors, at.seed)
    if not loss.requires_grad:
        return dict.fromkeys((s.name for s in meter.symmetries), 0.0)
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


def _require_same_loss(loss: TracedLoss, own: float, traced: float) -> None:
    random = any(
        isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p > 0 for m in loss.model.modules()
    )
    same = math.isfinite(own) and abs(own - traced) <= loss.precision.loss * max(abs(own), 1e-300)
    if not same and not random:
        raise SymmetryError(
            f"the traced graph gives the loss {traced:.12g} where the model gives {own:.12g}: the model's "
            "operations depend on the values of tensors, so its graph proves nothing"
        )
