"""Verification: the gradient's and the Hessian's constraint of each symmetry, measured (THEORY.md §2).

A normalisation's ε breaks the scale symmetry of what enters it, by an amount that is known: multiplying the input by
α and ε by α² leaves the loss as it is, so ⟨g, ξ⟩ = −2ε ∂L/∂ε exactly. With the ε's as further variables the
constraints hold to rounding, and the residual without them is explained to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import Interpreter, Node

from nm_ode.loss.derivatives import twice_differentiable, weight_norm
from nm_ode.parameters import Layout
from nm_ode.symmetries.graph import Graph, SymmetryError, argument, operation
from nm_ode.symmetries.kinds import Symmetry
from nm_ode.symmetries.meter import ChargeMeter
from nm_ode.symmetries.shapes import RESHAPES

if TYPE_CHECKING:
    from nm_ode.symmetries.scaling import Absorption
    from nm_ode.symmetries.subject import Subject

TOLERANCE = 1e-10
_FAINT = 1e-4  # of the whole gradient, below which a layer's own gradient is rounding to the tolerance


@dataclass(frozen=True)
class Check:
    """What was measured of one family, the worst over its charges and all draws.

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


@dataclass(frozen=True, eq=False)
class EpsilonLink:
    """Which charges multiply what one ε stands beside: group[i] enters charge[i] with power[i]."""

    absorption: Absorption
    groups: Tensor
    charges: Tensor
    powers: Tensor


class ExtendedLoss:
    """The traced loss as a function of the parameters and of every ε.

    Parameters are tensors of their own: the derivative of a slice of theta is a vector of theta's size.

    Args:
        subject: with the graph.
        links: the ε's.
    """

    def __init__(self, subject: Subject, links: Sequence[EpsilonLink]) -> None:
        self.layout, self.links = subject.layout, tuple(links)
        self._graph, self._rest = subject.graph, _rest(subject.model, subject.graph)
        self._absorptions = [link.absorption for link in links]
        self.epsilons = [
            torch.full(tuple(a.variables.shape), a.epsilon, dtype=torch.float64) for a in self._absorptions
        ]

    def __call__(
        self, parameters: dict[str, Tensor], epsilons: Sequence[Tensor], x: Tensor, y: Tensor, seed: int
    ) -> Tensor:
        given = {**self._rest, **{f"model.{name}": p for name, p in parameters.items()}, "x": x, "y": y}
        inputs = [given[name] for name in self._graph.inputs]
        replaced = {
            absorption.node: epsilon for absorption, epsilon in zip(self._absorptions, epsilons, strict=True)
        }
        with torch.random.fork_rng(devices=[]), twice_differentiable():
            torch.manual_seed(seed)  # dropout: the same units each time
            result: Tensor = _WithEpsilons(self._graph, replaced).run(*inputs)
        return result


class _WithEpsilons(Interpreter):
    """Runs the graph with normalisations written out, so that ε is a tensor to differentiate by."""

    def __init__(self, graph: Graph, epsilons: dict[Node, Tensor]) -> None:
        super().__init__(graph.module)
        self._live = {*graph.operations, *graph.parameters, *graph.frozen}
        self._epsilons, self._loss = epsilons, graph.loss

    def run_node(self, n: Node) -> Any:
        if n.op == "call_function" and n not in self._live:
            return None  # running statistics, and what nobody reads
        if n.op == "output":
            return self.env[self._loss]
        if n in self._epsilons:
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            return _with_epsilon(n, arguments, self.map_nodes_to_values, self._epsilons[n])
        if n.op == "call_function" and operation(n) in ("_weight_norm", "_weight_norm_interface"):
            v, g = (self.env[part] for part in n.args[:2])  # type: ignore[index]
            made = weight_norm(v, g, argument(n, "dim"))
            return (made, None) if isinstance(n.meta["val"], tuple | list) else made
        if n.op == "call_function" and operation(n) in RESHAPES:
            # The MATH attention's result has other strides than the kernel's that was traced.
            (x, *_), _ = self.fetch_args_kwargs_from_env(n)
            return x.reshape(tuple(n.meta["val"].shape))
        return super().run_node(n)


def _with_epsilon(node: Node, arguments: Any, read: Callable[..., Any], epsilon: Tensor) -> Any:
    name = operation(node)
    if name == "add":
        number = next(i for i, part in enumerate(node.args[:2]) if not isinstance(part, Node))
        return arguments[1 - number] + epsilon
    x = arguments[0]
    weight, bias = (read(argument(node, which), node) for which in ("weight", "bias"))
    ndim = x.ndim
    if name in ("layer_norm", "rms_norm"):
        dims = list(range(ndim - len(argument(node, "normalized_shape")), ndim))
        shape = [*epsilon.shape, *[1] * len(dims)]
        made = _normalised(x, dims, epsilon.reshape(shape), centred=name == "layer_norm")
        made = made if weight is None else made * weight
        return made if bias is None else made + bias
    per_channel = [1, -1, *[1] * (ndim - 2)]
    if name == "group_norm":
        grouped = x.unflatten(1, (argument(node, "num_groups"), -1))
        dims = list(range(2, grouped.ndim))
        made = _normalised(grouped, dims, epsilon.reshape(*epsilon.shape, *[1] * len(dims))).flatten(1, 2)
    elif name == "instance_norm":
        made = _normalised(x, list(range(2, ndim)), epsilon.reshape(*epsilon.shape, *[1] * (ndim - 2)))
    else:
        made = _normalised(x, [0, *range(2, ndim)], epsilon.reshape(per_channel))
    made = made if weight is None else made * weight.reshape(per_channel)
    made = made if bias is None else made + bias.reshape(per_channel)
    value = node.meta["val"]
    return (made, *[None] * (len(value) - 1)) if isinstance(value, tuple | list) else made


def _normalised(x: Tensor, dims: list[int], epsilon: Tensor, *, centred: bool = True) -> Tensor:
    if centred:
        x = x - x.mean(dims, keepdim=True)
    return x * torch.rsqrt(x.square().mean(dims, keepdim=True) + epsilon)


def verify(
    subject: Subject, symmetries: Sequence[Symmetry], links: Sequence[EpsilonLink], *, draws: int, seed: int
) -> dict[str, Check]:
    """Both constraints at random parameters and batches, in float64.

    Raises:
        SymmetryError: the traced graph does not compute what the model computes.
    """
    if not symmetries:
        return {}
    meter = ChargeMeter(subject.layout, symmetries)
    extended = ExtendedLoss(subject, links)
    generator = torch.Generator().manual_seed(seed)
    worst = {s.name: [0.0, 0.0, 0.0, 0.0] for s in symmetries}
    for draw in range(max(1, draws)):
        at = _Point(subject.drawn_theta(generator), *subject.drawn_batch(generator), draw)
        _require_same_loss(subject, extended, at)
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
    x: Tensor
    y: Tensor
    seed: int


def _gradient_residuals(
    extended: ExtendedLoss, meter: ChargeMeter, at: _Point
) -> tuple[Tensor, Tensor, Tensor]:
    """Relative ⟨g, ξ⟩ of each charge, the share of the ε's, and what neither explains."""
    layout, theta = extended.layout, at.theta
    parameters = leaves(layout, theta)
    epsilons = [e.detach().requires_grad_() for e in extended.epsilons]
    loss = extended(parameters, epsilons, at.x, at.y, at.seed)
    found = torch.autograd.grad(loss, [*parameters.values(), *epsilons], materialize_grads=True)
    gradient, by_epsilon = flat(found[: len(parameters)]), found[len(parameters) :]
    constraint = meter.constraint(gradient, theta)
    share = epsilon_constraint(extended.links, extended.epsilons, by_epsilon, meter.count)
    scale = meter.generator_norm(theta)
    whole = gradient.norm()
    of_layer = dict(zip(layout.layers, layout.layer_norms(gradient), strict=True))
    for s in meter.symmetries:
        layers = {layout[parameter].layer for parameter in s.parameters}
        norm = torch.stack([of_layer[layer] for layer in layers]).norm()
        # Where a layer's gradient is all but zero (before a LayerNorm of two features, say), what it is made of is not.
        scale[meter.slices[s.name]] *= torch.maximum(norm, _FAINT * whole)
    # A layer that the loss does not feel at this draw (all its units dead) has nothing to violate.
    scale = scale.clamp_min(torch.finfo(theta.dtype).tiny)
    return tuple((part / scale).abs() for part in (constraint, share, constraint - share))  # type: ignore[return-value]


def leaves(layout: Layout, theta: Tensor) -> dict[str, Tensor]:
    """The parameters in theta, each a variable of its own."""
    return {slot.name: theta[slot.slice].view(slot.shape).detach().requires_grad_() for slot in layout.slots}


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """End to end, as theta is."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def epsilon_constraint(
    links: Sequence[EpsilonLink], epsilons: Sequence[Tensor], by_epsilon: Sequence[Tensor], count: int
) -> Tensor:
    """⟨g, ξ⟩ as the ε's predict it: −Σ power · ε ∂L/∂ε for each charge."""
    share = torch.zeros(count, dtype=torch.float64)
    for link, epsilon, derivative in zip(links, epsilons, by_epsilon, strict=True):
        flat = (epsilon.detach() * derivative).reshape(-1)
        share.index_add_(0, link.charges, -link.powers * flat[link.groups])
    return share


def _hessian_residuals(
    extended: ExtendedLoss, meter: ChargeMeter, at: _Point, generator: torch.Generator
) -> dict[str, float]:
    """‖Hξ + Bg‖ relative, for a random combination of the charges of each kind; of each family where that fails."""
    layout, theta = extended.layout, at.theta
    parameters = leaves(layout, theta)
    leaf = list(parameters.values())
    epsilons = [e.detach().requires_grad_() for e in extended.epsilons]
    loss = extended(parameters, epsilons, at.x, at.y, at.seed)
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


def _require_same_loss(subject: Subject, extended: ExtendedLoss, at: _Point) -> None:
    model = subject.model
    parameters = leaves(subject.layout, at.theta)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        traced = float(extended(parameters, extended.epsilons, at.x, at.y, at.seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(at.seed)
            direct = float(subject.loss_fn(functional_call(model, (parameters, buffers), (at.x,)), at.y))
    random = any(
        isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p > 0 for m in model.modules()
    )
    if not abs(traced - direct) <= 1e-9 * max(abs(direct), 1e-300) and not random:
        raise SymmetryError(
            f"the traced graph gives the loss {traced:.12g} where the model gives {direct:.12g}: the model's "
            "operations depend on the values of tensors, so its graph proves nothing"
        )


def _rest(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    values = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    values |= {f"model.{name}": b for name, b in model.named_buffers()}
    values |= graph.module.meta["constants"]
    return values
