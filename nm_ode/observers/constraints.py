"""The geometric constraints that symmetries put on gradient and Hessian, measured along a run, beside rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nm_ode.arguments import as_count, as_dtype, said
from nm_ode.data.sources import place
from nm_ode.errors import ArgumentError
from nm_ode.loss import LossFunction, NoSecondDerivative, Objective
from nm_ode.loss.precision import coarsest_rounding, gradient_precision
from nm_ode.loss.probed import Mode, Probed, copy_of, leaves_in_place, require_scalar
from nm_ode.loss.spectral import signs
from nm_ode.loss.sums import norm
from nm_ode.observers.base import Context, Coordinates, Observer, View
from nm_ode.observers.cadence import Every
from nm_ode.observers.probing import Probing, objective_of, seed_at
from nm_ode.registry import NotInCases
from nm_ode.required import as_flag, as_seed
from nm_ode.results import variable
from nm_ode.sketches import SparseSigns
from nm_ode.symmetries import ChargeMeter, Symmetry
from nm_ode.symmetries.layers import faint_scale

DIM = "constraint_symmetry"
"""The dimension along which the symmetries lie."""

EACH, COMBINED = "each generator", "a random combination of its generators"
"""By which a symmetry's Hessian constraint is measured."""

_FAR = 8.0  # roundings by which theta is moved: far enough for every later number to be rounded anew
_TIMES = 2  # that the gradient is looked at elsewhere; products are at the first
_SKETCH = 1024  # numbers of a vector, by which its change is known to 2 %
_FLOOR = 1e-3  # of H's size times ξ's: what a Hessian constraint's residual is at least divided by


@dataclass(frozen=True, eq=False)
class Constraints(Observer):
    """⟨g, ξ⟩ = 0 and Hξ + (∂ξ)ᵀg = 0 of each symmetry every so many steps, relative, and what rounding makes of them.

    The constraints hold at every theta and for every batch (docs/theory.md §2.1; Kunin et al. 2021, §3): Hξ = 0 for a
    translation, Hθ_A = −g_A for a scale, H(θ_A − θ_B) = −(g_A − g_B) for a rescale. Along `constraint_step`, and at
    each sample of a flow, of each symmetry (`constraint_symmetry`):

    - `gradient_constraint` |⟨g, ξ⟩|/(‖g‖ ‖ξ‖), the largest of its charges, g being that of the symmetry's layers (of
      no less than 1e-4 of the whole gradient);
    - `curvature_constraint` ‖Hξ + (∂ξ)ᵀg‖/(‖Hξ‖ + ‖(∂ξ)ᵀg‖), the divisor no less than a thousandth of H's size in the
      gradient's direction times ‖ξ‖. Coordinate `constraint_by`: a symmetry of at most `products` charges is measured
      generator by generator, and this is the largest; any other by one combination of all its generators with random
      normal coefficients, in which a single charge of C that is broken shows by about 1/√C;
    - `gradient_constraint_floor`, `curvature_constraint_floor`: by how much the residual changes when every parameter
      is moved by a few roundings, at which all that follows is rounded anew. A residual within some twenty times of its
      floor is zero for all that can be known; one that is broken is there at both places, and far above. The ε of a
      normalisation breaks a scale symmetry by a little (§2.2), which is seen: coordinate `constraint_epsilon`.

    Where there is no Hessian its constraints are NaN, and coordinate `constraint_reason` says why. Where loss or
    gradient are not finite, all are NaN. The loss is that of the run's problem over all samples, or
    objective(model, batch) on a fixed batch as of `Hessian`.

    Args:
        symmetries: as `find_symmetries` or `symmetries_of` gives them; none at all observes nothing.
        every: `Every(n)`, or n.
        hessian: measure those of the Hessian, too, at two products a generator; else they are not recorded.
        products: of a symmetry of at most so many charges each generator has products of its own.
        samples: without a batch, how many of the problem's, spread over all; None for all of them.
        objective: of (model, batch), a scalar.
        batch: a tree of tensors.
        loss_fn: of (model(x), y), in the place of the objective; the batch is then (x, y).
        mode: "train" or "eval", for the model's modules meanwhile, on a batch of one's own; as found if None.
        dtype: in which to compute on a batch of one's own; the problem's or theta's if None.
        seed: of random combinations, roundings and what a forward pass draws.

    Raises:
        ArgumentError: numbers out of range, or arguments that do not go together.
        SymmetryError: from the run: symmetries of another model.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> constraints = nm_ode.Constraints(nm_ode.symmetries_of(problem), every=2)
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=5, observe=[constraints])
        >>> run.gradient_constraint.shape, float(run.curvature_constraint.max()) < 1e-10
        ((3, 2), True)
    """

    costly: ClassVar[bool] = True

    symmetries: Sequence[Symmetry]
    every: Every | int = 100
    hessian: bool = True
    products: int = 1
    samples: int | None = None
    objective: Objective | None = None
    batch: Annotated[Any, NotInCases()] = field(default=None, repr=False)
    loss_fn: LossFunction | None = None
    mode: Annotated[Mode | None, NotInCases()] = None
    dtype: Annotated[torch.dtype | None, NotInCases()] = None
    seed: int = 0

    def __post_init__(self) -> None:
        given: Any = self.symmetries
        if isinstance(given, Symmetry | str) or not all(isinstance(one, Symmetry) for one in given):
            raise ArgumentError(
                "Constraints takes a sequence of symmetries, as nm_ode.symmetries_of(problem) gives them; "
                f"{said(given)} was given"
            )
        for name, value in {
            "symmetries": tuple(given),
            "every": self.every if isinstance(self.every, Every) else Every(self.every),
            "hessian": as_flag(self.hessian, "hessian"),
            "products": as_count(self.products, "products"),
            "samples": None if self.samples is None else as_count(self.samples, "samples"),
            "dtype": None if self.dtype is None else as_dtype(self.dtype),
            "seed": as_seed(self.seed),
        }.items():
            object.__setattr__(self, name, value)
        if self.mode not in (None, "train", "eval"):
            raise ArgumentError(f"mode must be one of (None, 'train', 'eval'); {said(self.mode)} was given")
        objective_of(self.objective, self.loss_fn, self.batch, "Constraints")
        if self.batch is None and (self.mode is not None or self.dtype is not None):
            raise ArgumentError("Constraints: mode and dtype are of a batch of one's own: leave them out")
        if self.batch is not None and self.samples is not None:
            raise ArgumentError(
                "Constraints: samples are of a problem's, and a batch was given: leave one out"
            )

    def begin(self, context: Context) -> Sequence[Observer]:
        return [_Measured(context, self)] if self.symmetries else []


class _Measured(Observer):
    dim: str = "constraint_step"

    def __init__(self, context: Context, asked: Constraints) -> None:
        self._asked, self._opened = asked, _Opened(context, asked)
        self._meter = ChargeMeter(context.layout, asked.symmetries, context.device)
        self._layout, symmetries = context.layout, asked.symmetries
        self._layers = [
            dict.fromkeys(context.layout[name].layer for name in one.parameters) for one in symmetries
        ]
        self._reason = self._opened.without_hessian() if asked.hessian else ""
        self._has_hessian = asked.hessian and not self._reason
        self._signs = SparseSigns(context.layout, _SKETCH, asked.seed, context.device)
        names = ["gradient_constraint", *(["curvature_constraint"] if asked.hessian else [])]
        self.variables = {
            **{name: variable(name, DIM) for one in names for name in (one, f"{one}_floor")},
            "constraint_products": variable("constraint_products"),
        }

    def steps(self, context: Context) -> Collection[int]:
        assert isinstance(self._asked.every, Every)
        return self._asked.every.steps(context)

    def coordinates(self) -> Coordinates:
        def texts(values: Iterable[str]) -> tuple[str, np.ndarray]:
            return DIM, np.array(list(values), dtype=object)  # Zarr v3 has a type for strings, none for '<U'

        symmetries = self._asked.symmetries
        found = {
            DIM: texts(one.name for one in symmetries),
            "constraint_kind": texts(one.kind for one in symmetries),
            "constraint_epsilon": (DIM, np.array([one.epsilon for one in symmetries])),
        }
        if self._asked.hessian:
            found["constraint_by"] = texts(
                EACH if one.count <= self._asked.products else COMBINED for one in symmetries
            )
            found["constraint_reason"] = texts([self._reason] * len(symmetries))
        return found

    def memory(self) -> Mapping[str, Any]:
        return {}  # nothing outlives a step

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def observe(self, view: View) -> Mapping[str, Any]:
        seed = seed_at(self._asked.seed, view.step)
        source = torch.Generator("cpu").manual_seed(seed + 1)
        theta = view.theta.to(self._opened.dtype)  # in a coarser one moving it would change nothing
        found = [self._measured(theta, view, seed, curved=True)]
        for time in range(_TIMES):
            moved = theta + theta * signs(theta, source) * (_FAR * self._opened.rounding)
            found.append(self._measured(moved, view, seed, curved=time == 0))
        if any(one is None for one in found):
            return self._nothing()
        here, beside, *others = [one for one in found if one is not None]
        least = self._opened.rounding
        changes = torch.stack([(one.along - here.along).abs() for one in (beside, *others)]).amax(0)
        named: dict[str, Any] = {
            "gradient_constraint": self._largest(here.along.abs()),
            "gradient_constraint_floor": self._largest(changes).clamp_min(least),
            "constraint_products": float(here.products + beside.products),
        }
        if self._reason:
            named |= dict.fromkeys(("curvature_constraint", "curvature_constraint_floor"), self._missing)
        if self._has_hessian:
            pairs = zip(here.curved, beside.curved, strict=True)
            floors = [
                torch.stack([a.change_to(b) for a, b in zip(*pair, strict=True)]).amax() for pair in pairs
            ]
            largest = [torch.stack([one.residual for one in group]).amax() for group in here.curved]
            named |= {
                "curvature_constraint": torch.stack(largest),
                "curvature_constraint_floor": torch.stack(floors).clamp_min(least),
            }
        return named

    @property
    def _missing(self) -> Tensor:
        return torch.full([len(self._asked.symmetries)], math.nan, dtype=torch.float64, device="cpu")

    def _nothing(self) -> dict[str, Any]:
        return {name: self._missing if one.dims else 0.0 for name, one in self.variables.items()}

    def _measured(self, theta: Tensor, view: View, seed: int, *, curved: bool) -> _Residuals | None:
        """At one theta; None where loss or gradient are not finite."""
        with self._opened.at(View(None, view.step, view.time, theta)) as matrix:
            theta = theta.to(matrix.like)
            if not _finite(matrix.loss, matrix.gradient):
                return None
            along = self._meter.constraint(matrix.gradient, theta) / self._scale(theta, matrix.gradient)
            if not (curved and self._has_hessian):
                return _Residuals(along)
            return self._with_curvature(matrix, theta, along, seed)

    def _scale(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """‖g‖ ‖ξ‖ of each charge, g being that of the symmetry's layers."""
        of_layer, scale = faint_scale(self._layout, gradient), self._meter.generator_norm(theta)
        for symmetry, layers in zip(self._asked.symmetries, self._layers, strict=True):
            scale[self._meter.slices[symmetry.name]] *= math.hypot(*(of_layer[layer] for layer in layers))
        return scale.clamp_min(torch.finfo(scale.dtype).tiny)  # what has no gradient has nothing to violate

    def _with_curvature(self, matrix: Probed, theta: Tensor, along: Tensor, seed: int) -> _Residuals:
        size, spent = norm(matrix.gradient), 1
        of_matrix = norm(matrix.matvec(matrix.gradient / size)) if float(size) else size
        if not float(of_matrix):
            # No gradient, or one that H takes to nothing: H's size in a direction by chance.
            drawn = signs(theta, torch.Generator("cpu").manual_seed(seed + 2))
            of_matrix, spent = norm(matrix.matvec(drawn)) / norm(drawn), spent + 1
        source, curved = torch.Generator("cpu").manual_seed(seed), []
        for symmetry in self._asked.symmetries:
            group = []
            for coefficients in self._combinations(symmetry, theta, source):
                direction = self._meter.apply(theta, coefficients) + self._meter.shift(theta, coefficients)
                product = matrix.matvec(direction)
                expected = self._meter.apply(matrix.gradient, coefficients)
                # Of a translation both are zero: then H in the gradient's direction is what to compare with.
                least = (_FLOOR * of_matrix * norm(direction)).clamp_min(torch.finfo(torch.float64).tiny)
                scale = torch.maximum(norm(product) + norm(expected), least)
                product.add_(expected)
                group.append(_Curved(norm(product) / scale, self._signs.of(product) / scale))
            spent += len(group)
            curved.append(group)
        return _Residuals(along, curved, spent)

    def _combinations(self, symmetry: Symmetry, theta: Tensor, source: torch.Generator) -> Iterator[Tensor]:
        """Coefficients of all charges: one generator of the symmetry after the other, or one combination of them."""
        here = self._meter.slices[symmetry.name]
        each = symmetry.count <= self._asked.products
        drawn = torch.randn(symmetry.count, generator=source, dtype=torch.float64, device="cpu")
        for row in torch.eye(symmetry.count, dtype=torch.float64, device="cpu") if each else drawn[None]:
            coefficients = theta.new_zeros(self._meter.count)
            coefficients[here] = row.to(coefficients)
            yield coefficients

    def _largest(self, of_charges: Tensor) -> Tensor:
        return torch.stack(
            [of_charges[self._meter.slices[one.name]].amax() for one in self._asked.symmetries]
        )


@dataclass(frozen=True, eq=False)
class _Curved:
    """Hξ + (∂ξ)ᵀg of one combination, relative: its norm, and a sketch of it."""

    residual: Tensor
    sketch: Tensor

    def change_to(self, other: _Curved) -> Tensor:
        """Distance to the same at another theta."""
        return norm(self.sketch - other.sketch)


@dataclass(frozen=True, eq=False)
class _Residuals:
    """At one theta: ⟨g, ξ⟩/(‖g‖‖ξ‖) of each charge, and of each symmetry the combinations of its generators."""

    along: Tensor
    curved: Sequence[Sequence[_Curved]] = ()
    products: int = 0


class _Opened:
    """The loss at any theta: with products where there is a Hessian that is asked for.

    Attributes:
        dtype: in which loss and gradient are computed.
        rounding: of the coarsest dtype that the gradient passes through.
    """

    def __init__(self, context: Context, asked: Constraints) -> None:
        self._context, self._asked = context, asked
        self._probing = Probing(
            context,
            objective_of(asked.objective, asked.loss_fn, asked.batch, "Constraints"),
            asked.batch,
            matrix="hessian",
            mode=asked.mode,
            dtype=asked.dtype,
            seed=asked.seed,
            who="Constraints",
            samples=asked.samples,
        )
        self._curved = asked.hessian
        self._of_problem = asked.batch is None
        given = context.problem.dtype if self._of_problem else self._probing.dtype
        self.dtype = self._parameters().dtype if given is None else given
        self.rounding = self._of_whole() if self._of_problem else self._of_batch()

    def _of_whole(self) -> float:
        problem = self._context.problem
        return max(torch.finfo(problem.dtype).eps, gradient_precision(problem).noise)

    def _of_batch(self) -> float:
        """By one forward pass: a model or an objective may compute in a coarser dtype inside."""
        with self._leaves(self._parameters()) as (compute, leaves), torch.no_grad():
            return coarsest_rounding(leaves, compute)

    def _parameters(self) -> Tensor:
        """Those that the model has now."""
        named = dict(self._probing.model.named_parameters(remove_duplicate=False))
        return torch.cat([named[name].detach().reshape(-1) for name in self._context.layout.names])

    def without_hessian(self) -> str:
        """Why there is no Hessian; empty where there is one."""
        if self._of_problem and self._context.problem.has_hessian:
            return ""
        try:
            with self._probing.at(View(None, 0, 0.0, self._parameters())) as matrix:
                matrix.matvec(matrix.gradient)
        except NoSecondDerivative as error:
            self._curved = False
            return str(error)
        return ""

    @contextmanager
    def at(self, view: View) -> Iterator[Probed]:
        """Loss and gradient, and products where there are."""
        if self._of_problem or self._curved:
            with self._probing.at(view) as matrix:
                yield matrix
            return
        with self._leaves(view.theta) as (compute, leaves):
            loss = compute()
            pieces = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            gradient = torch.cat([piece.detach().reshape(-1) for piece in pieces])
            yield _GradientAlone(loss.detach(), gradient)

    @contextmanager
    def _leaves(self, theta: Tensor) -> Iterator[tuple[Callable[[], Tensor], list[Tensor]]]:
        """The loss over the batch of one's own, as a function of nothing, and theta's pieces that it depends on."""
        asked, model, objective = self._asked, self._probing.model, self._probing.objective
        with leaves_in_place(
            model, objective, theta, self._context.layout, mode=asked.mode, dtype=self.dtype, seed=asked.seed
        ) as (found, leaves):
            batch = place(asked.batch, leaves[0].device, leaves[0].dtype)

            def compute() -> Tensor:
                found.rewind()
                return require_scalar(objective(model, copy_of(batch)))

            yield compute, leaves


class _GradientAlone(Probed):
    """A loss without products."""

    random = False

    def __init__(self, loss: Tensor, gradient: Tensor) -> None:
        self.loss, self.gradient = loss, gradient

    def matvec(self, v: Tensor) -> Tensor:
        raise NotImplementedError


def _finite(*tensors: Tensor) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
