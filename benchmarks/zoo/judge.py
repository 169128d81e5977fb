"""Two judgements that use nothing of how symmetries are found: the model's own loss and gradient, in float64.

Sound: θ is carried a finite way along every generator that was found, and the loss of fresh batches must stay.

Complete: a search for conserved Q(θ) = θᵀBθ + ⟨c, θ⟩ over a family of B and c. Q is conserved by gradient flow of
every batch if and only if ⟨g, 2Bθ + c⟩ = 0 at every θ and batch, which is linear in (B, c): the null space of as many
draws as the family has members is all that is conserved, if every unit is alive at them. Behind units that are dead at
most draws it takes more: so many are added until none of it is lost. The family: of every parameter and every axis a
the distinct entries of its Gram matrix along a (which has scales of rows and columns and the charges of GL); every
single entry's square and every single entry (which has shifts with any signs), where there are few enough, else sums
over rows and columns.

A normalisation's ε breaks the scale symmetries by a known amount and is made 0 here; casts to float32 are left out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from nm_ode.parameters import Layout
from nm_ode.symmetries import ChargeMeter, Symmetry
from zoo.registry import Net

Array = NDArray[np.float64]

MOST_MEMBERS = 1600  # of the family: as many gradients, and a singular value decomposition of that size
_NULL = 1e-9  # a singular value below this share of the largest is rounding
_MOST = 1e6  # a gradient beyond this is of a variance that is all but zero: rounding
_SHORT = 1e-5  # and so is this share of a unit vector
_MOVED = 1e-8  # the loss may change by this much, relative


class _Double(TorchFunctionMode):
    """Casts to float32 do nothing: float64 stays."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.float:
            return args[0].double()
        if func is Tensor.to or func is Tensor.type or "softmax" in getattr(func, "__name__", ""):
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        if kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


class Judged:
    """A network in float64, with fresh batches: its loss and gradient at any θ."""

    def __init__(self, net: Net, seed: int = 1) -> None:
        self.model = copy.deepcopy(net.model).double()
        for module in self.model.modules():
            if hasattr(getattr(module, "config", None), "_experts_implementation"):
                module.config._experts_implementation = "eager"  # which has float64
            for name, value in vars(module).items():
                if "eps" in name and isinstance(value, float) and value < 1e-2:
                    setattr(module, name, 1e-30)
        self.net, self.layout = net, Layout.of(self.model)
        self.generator = torch.Generator().manual_seed(seed)
        self.parameters = [self.model.get_parameter(slot.name) for slot in self.layout.slots]
        self.start = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.still = self._padding()
        self.state = copy.deepcopy(dict(self.model.named_buffers()))

    def _padding(self) -> Tensor:
        """Entries that no gradient reaches because torch stops it: rows of padding. Nothing is said of them."""
        still = torch.zeros(self.start.shape, dtype=torch.bool)
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                for slot in self.layout.slots:
                    if slot.name == f"{name}.weight":
                        still[slot.slice].view(slot.shape)[module.padding_idx] = True
        return still

    def theta(self) -> Tensor:
        """About the start, but so far from it that no unit is dead at every draw; rows of padding stay."""
        noise = torch.randn(self.start.shape, dtype=torch.float64, generator=self.generator)
        pieces = []
        for slot in self.layout.slots:
            own = self.start[slot.slice]
            size = float(own.square().mean().sqrt()) or 0.1
            pieces.append(own + 0.6 * size * noise[slot.slice])
        return torch.where(self.still, self.start, torch.cat(pieces))

    def batch(self) -> Any:
        """Integers between the least and the largest, numbers with noise."""

        def fresh(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or leaf.ndim == 0:
                return leaf
            if not leaf.is_floating_point():
                low, high = leaf.aminmax(dim=0, keepdim=True) if self.net.columns else leaf.aminmax()
                share = torch.rand(leaf.shape, generator=self.generator)
                return low + (share * (high - low + 1)).long()
            leaf = leaf[torch.randperm(len(leaf), generator=self.generator)].double()
            if bool(((leaf == 0) | (leaf == 1)).all()):
                return leaf
            noise = torch.randn(leaf.shape, dtype=torch.float64, generator=self.generator)
            if bool((leaf >= 0).all()) and bool((leaf <= 1).all()):
                return (leaf + 0.2 * noise).clamp(0, 1)
            return leaf + noise

        return tree_map(fresh, self.net.batch)

    def loss(self, theta: Tensor, batch: Any) -> Tensor:
        """With a graph to the parameters."""
        with torch.no_grad():
            for slot, parameter in zip(self.layout.slots, self.parameters, strict=True):
                parameter.copy_(theta[slot.slice].view(slot.shape))
            for name, buffer in self.model.named_buffers():
                if name in self.state:
                    buffer.copy_(self.state[name])
        with _Double():
            return self.net.objective(self.model, batch).double()

    def gradient(self, theta: Tensor, batch: Any) -> Tensor:
        """g."""
        loss = self.loss(theta, batch)
        pieces = torch.autograd.grad(loss, self.parameters, materialize_grads=True, allow_unused=True)
        return torch.cat([piece.reshape(-1) for piece in pieces])


def unsound(judged: Judged, found: Sequence[Symmetry], batches: int = 2) -> dict[str, float]:
    """Symmetries along which the loss of a fresh batch changes, and by how much."""
    moved: dict[str, float] = {}
    for symmetry in found:
        meter = ChargeMeter(judged.layout, [symmetry])
        for _ in range(batches):
            theta, batch = judged.theta(), judged.batch()
            coefficients = 0.4 * torch.randn(meter.count, dtype=torch.float64, generator=judged.generator)
            with torch.no_grad():
                one = float(judged.loss(theta, batch))
                other = float(judged.loss(carried(meter, theta, coefficients), batch))
            change = abs(other - one) / max(abs(one), 1e-3)
            if not change < _MOVED:
                moved[symmetry.name] = max(change, moved.get(symmetry.name, 0.0))
    return moved


def carried(meter: ChargeMeter, theta: Tensor, coefficients: Tensor) -> Tensor:
    """exp(Σ r_c ξ_c) θ, of generators that are all constant or all linear: the exponential series."""
    total, term = theta.clone(), theta
    for n in range(1, 60):
        term = meter.apply(term, coefficients) / n
        if not bool(term.abs().max() > 1e-18):
            break
        total += term
    return total + meter.shift(theta, coefficients)


@dataclass(frozen=True)
class Search:
    """Dimensions of what is conserved in the family.

    Attributes:
        members: of the family.
        whole: are all single entries in it?
        conserved: independent Q's; products of translations' charges are not counted.
        explained: of these, in the span of the charges that were found.
        beyond: charges that were found and that the family cannot say (so that the search says nothing of them).
        unexplained: the rest, described.
    """

    members: int
    whole: bool
    conserved: int
    explained: int
    beyond: int
    unexplained: tuple[str, ...]


@dataclass(frozen=True)
class _Member:
    """Some features of one parameter: `of(u, v)` bilinear, or linear in u alone (`quadratic` False)."""

    what: str
    slot: Any
    quadratic: bool
    count: int
    of: Callable[[Tensor, Tensor], Tensor]


def _family(layout: Layout, whole: bool) -> list[_Member]:
    members: list[_Member] = []
    for slot in layout.slots:
        shape = tuple(slot.shape) or (1,)
        axes = [axis for axis in range(len(shape)) if 1 < shape[axis] <= 64 and (axis < 2 or len(shape) <= 3)]
        for axis in axes:
            members.append(_gram(slot, shape, axis, diagonal=not whole))
        if whole or not axes:
            size = math.prod(shape)
            members.append(_Member("scale of", slot, True, size, lambda u, v: u * v))
            members.append(_Member("shift of", slot, False, size, lambda u, _: u))
        else:
            members += [_sums(slot, shape, axis) for axis in axes]
    return members


def _gram(slot: Any, shape: tuple[int, ...], axis: int, diagonal: bool) -> _Member:
    n = shape[axis]
    i, j = torch.triu_indices(n, n, offset=0 if diagonal else 1)

    def of(u: Tensor, v: Tensor) -> Tensor:
        one, other = (t.view(shape).movedim(axis, 0).reshape(n, -1) for t in (u, v))
        product = one @ other.T
        return 0.5 * (product + product.T)[i, j]

    return _Member(f"products along axis {axis} of", slot, True, i.numel(), of)


def _sums(slot: Any, shape: tuple[int, ...], axis: int) -> _Member:
    def of(u: Tensor, _: Tensor) -> Tensor:
        return u.view(shape).movedim(axis, 0).reshape(shape[axis], -1).sum(1)

    return _Member(f"shift along axis {axis} of", slot, False, shape[axis], of)


def _features(members: Sequence[_Member], u: Tensor, v: Tensor, quadratic: bool | None = None) -> Tensor:
    return torch.cat(
        [
            m.of(u[m.slot.slice], v[m.slot.slice])
            if quadratic is None or m.quadratic is quadratic
            else torch.zeros(m.count, dtype=torch.float64)
            for m in members
        ]
    )


@dataclass(frozen=True)
class Conserved:
    """What is conserved in the family, whatever was found: coefficients; and the linear charges, of θ's size."""

    whole: bool
    null: Array
    fixed: Array


def conserved_of(judged: Judged) -> Conserved | None:
    """None where the network is too large."""
    for whole in (True, False):
        members = _family(judged.layout, whole)
        count = sum(m.count for m in members)
        if count <= MOST_MEMBERS:
            return Conserved(whole, *_conserved(judged, members, count))
    return None


def search(judged: Judged, space: Conserved, found: Sequence[Symmetry]) -> Search:
    """All of the family that is conserved, beside what was found."""
    null, fixed, members = space.null, space.fixed, _family(judged.layout, space.whole)
    meter = ChargeMeter(judged.layout, found)
    linear = meter.is_translation
    # A product of a translation's charge with another is conserved too and says nothing new: off their span.
    one = torch.eye(meter.count, dtype=torch.float64)[linear]
    mine_too = [meter.shift(judged.start, row).numpy() for row in one]
    across = _span(np.column_stack([fixed, *mine_too]))
    told, charges = [], []
    generator = torch.Generator().manual_seed(5)
    for _ in range(null.shape[1] + meter.count + 20):
        u, v = torch.randn(2, judged.layout.size, dtype=torch.float64, generator=generator)
        u, v = u * ~judged.still, v * ~judged.still
        pu, pv = (t - torch.from_numpy(across @ (across.T @ t.numpy())) for t in (u, v))
        told += [
            _features(members, pu, pv, True).numpy() @ null,
            _features(members, u, v, False).numpy() @ null,
        ]
        charges += [meter.bracket(pu, pv).numpy(), torch.where(linear, meter.charge(u), 0.0).numpy()]
    directions, mine = _span(np.array(told)), _span(np.array(charges))
    rest = _span(directions - mine @ (mine.T @ directions))
    beyond = _span(mine - directions @ (directions.T @ mine))
    return Search(
        null.shape[0],
        space.whole,
        directions.shape[1],
        directions.shape[1] - rest.shape[1],
        beyond.shape[1],
        _described(members, null, np.array(told), rest),
    )


def _conserved(judged: Judged, members: Sequence[_Member], count: int) -> tuple[Array, Array]:
    """Coefficients in the family, one column for each conserved combination; and of the linear ones, those of θ."""
    rows, null, left = np.empty((0, count)), np.eye(count), -1
    while null.shape[1] != left:
        left = null.shape[1]
        rows = np.concatenate([rows, _draws(judged, members, count)])
        size = np.sqrt(np.square(rows).mean(0))
        size = np.maximum(size, 1e-4 * size.max())  # what hardly moves must not be blown up
        scaled = rows / size
        null = _null(scaled)
    linear = np.concatenate([np.full(m.count, not m.quadratic) for m in members])
    at = judged.start.clone().requires_grad_()
    made = torch.autograd.functional.jacobian(lambda u: _features(members, u, u, False), at).numpy()
    fixed = made[linear].T @ (_null(scaled[:, linear]) / size[linear, None])
    return np.linalg.svd(null / size[:, None], full_matrices=False)[0], fixed


def _draws(judged: Judged, members: Sequence[_Member], count: int) -> Array:
    """A few more than the family has members."""
    rows, moving = np.empty((count + 15, count)), ~judged.still
    for row in rows:
        norm = torch.tensor(torch.inf)
        while not bool(norm < _MOST):  # a distance or a variance of zero, say, has no gradient
            theta = judged.theta()
            gradient = judged.gradient(theta, judged.batch())
            norm = gradient.norm()
        row[:] = _features(members, moving * (gradient / norm if norm > 0 else gradient), theta).numpy()
    return rows


def _null(rows: Array) -> Array:
    """Of at least as many rows as columns."""
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    return right[int((values > _NULL * values[0]).sum()) :].T


def _span(columns: Array) -> Array:
    if not columns.size:
        return np.zeros((columns.shape[0], 0))
    norms = np.linalg.norm(columns, axis=0)
    columns = columns[:, norms > _SHORT * max(1.0, norms.max())] if norms.max() > 0 else columns[:, :0]
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, values > _SHORT * values[0]] if values.size else np.zeros((columns.shape[0], 0))


def _described(members: Sequence[_Member], null: Any, told: Any, rest: Any) -> tuple[str, ...]:
    """Of what is left: how much of each parameter is in it."""
    if not rest.shape[1]:
        return ()
    # Of all combinations with the same Q the shortest.
    coefficients = null @ np.linalg.lstsq(told, rest, rcond=1e-9)[0]
    coefficients = coefficients / np.linalg.norm(coefficients, axis=0)
    text, start = [], 0
    for m in members:
        piece = coefficients[start : start + m.count]
        start += m.count
        rank = int((np.linalg.svd(piece, compute_uv=False) > 1e-4).sum())
        if rank:
            text.append(f"{m.what} {m.slot.name}: {rank}")
    return tuple(text)
