"""The Hessian of one loss at a cadence: its largest eigenvalues, density and trace, and the gradient in it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nm_ode.arguments import as_count, as_dtype, said
from nm_ode.errors import ArgumentError
from nm_ode.loss import LossFunction, Objective
from nm_ode.loss.eigenpairs import largest_eigenpairs
from nm_ode.loss.probed import Matrix, Mode, Probed
from nm_ode.loss.spectral import quadratures, signs, trace
from nm_ode.loss.sums import inner, norm
from nm_ode.observers.base import Context, Coordinates, Observer, View
from nm_ode.observers.cadence import Every
from nm_ode.observers.probing import Probing, objective_of, seed_at
from nm_ode.registry import NotInCases
from nm_ode.required import as_positive, as_seed
from nm_ode.results import Variable
from nm_ode.symmetries import ChargeMeter, Symmetry

_KEPT = 2**22  # numbers of eigenvectors in a checkpoint or store, at most: 16 MB in float32
_FLOOR = 1e-3  # of H's size times ξ's: what a constraint's residual is at least divided by


@dataclass(frozen=True, eq=False)
class Hessian(Observer):
    """The Hessian (or Gauss–Newton matrix) of objective(model, batch), the batch fixed, every so many steps.
    See docs/theory.md §4.9.

    In a loop of the user's own it is that of the user's model at the parameters as they are, in float32 or finer and
    without autocast; the model is left exactly as it was found. Of compiled and distributed models the module inside is
    evaluated, in this process alone. What a forward pass draws (dropout) is drawn with one seed, the same each time,
    and `hessian_random` is 1. Without an objective it is that of the run's problem over all samples (in `train`, or
    where the Recorder has one). Along a flow it is measured at each sample.

    Along `hessian_step`, and named `gauss_newton_…` of that matrix:

    - `hessian_loss`, `hessian_grad_norm`: of the batch;
    - `hessian_curvature` gᵀHg/‖g‖² and `hessian_gradient_norm` ‖Hg‖, g the gradient of the batch;
    - `hessian_eigenvalue`, the `top` largest, with `hessian_eigenvalue_residual` ‖Hv − λv‖ (so near to each there is an
      eigenvalue) and `hessian_asymmetry` of the products (rounding, where they are right);
    - `hessian_overlap` ‖Vᵀg‖²/‖g‖², the share of the gradient in the space of these eigenvectors, and
      `hessian_step_overlap`, that of the step's own gradient;
    - `hessian_trace` with `hessian_trace_error`, its standard error, over `hessian_trace_vectors` random vectors: 95 %
      of intervals of ± t standard errors hold it, t being Student's with one degree less (12.7 for 2, 2.8 for 5);
    - `hessian_node`, `hessian_weight`: Lanczos quadratures, of which `spectral_density` makes the density with its
      standard error;
    - `hessian_constraint` ‖Hξ + Bg‖, relative, of a random combination of each symmetry's charges;
    - `hessian_products`: how many were spent. One costs two or three gradients of the batch.

    Where loss, gradient or the product with it are not finite, the others are NaN.

    Args:
        objective: of (model, batch), a scalar; it must evaluate the model that it is given.
        batch: a tree of tensors; with `chunk_size` also a Dataset or arrays on disk, which are read by chunks.
        loss_fn: of (model(x), y), in the place of the objective; the batch is then (x, y).
        chunk_size: the most samples of the batch in one forward pass, for a batch that is larger than memory; all of
            them if None. Nothing else changes but rounding and time: each product then evaluates the batch anew. For a
            loss that is the mean or the sum over samples, which is measured.
        samples: without a batch, how many of the problem's, spread over all; None for all of them.
        every: `Every(n)`, or n.
        top: how many eigenvalues; 0 for none. A search starts from the eigenvectors before. It has up to
            2·max(top, 6) + top vectors of P numbers in memory, and keeps top + 1. A checkpoint or store has them up to
            4 million numbers; a run of more parameters that goes on searches from nothing once, to the same tolerance.
        trace: products to spend on it; at least 2 beside `top`, 6 without (Hutch++); 0 for none.
        density: random vectors; 0 for none.
        density_steps: products that each takes, and as many vectors in memory.
        symmetries: whose Hessian constraints are measured, at a product each.
        matrix: "hessian" or "gauss_newton", which needs loss_fn.
        mode: "train" or "eval", for the model's modules meanwhile; as they are found if None.
        dtype: in which to compute, where theta's is too coarse; theta's if None.
        tol: of the eigenvalues' residuals, relative to the largest.
        most: products that a search may take.
        seed: of random vectors and of what a forward pass draws.

    Raises:
        ArgumentError: numbers out of range, or arguments that do not go together.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> hessian = nm_ode.Hessian(every=4, top=2)
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=9, observe=[hessian])
        >>> run.hessian_step.values, run.hessian_eigenvalue[0].values.round(2)
        (array([0, 4, 8]), array([8.05, 2.98]))
    """

    costly: ClassVar[bool] = True

    objective: Objective | None = None
    batch: Annotated[Any, NotInCases()] = field(default=None, repr=False)
    loss_fn: LossFunction | None = None
    every: Every | int = 200
    top: int = 5
    trace: int = 0
    density: int = 0
    density_steps: int = 30
    symmetries: Sequence[Symmetry] = ()
    matrix: Matrix = "hessian"
    mode: Mode | None = None
    dtype: torch.dtype | None = None
    tol: float = 1e-3
    most: int = 200
    seed: int = 0
    chunk_size: Annotated[int | None, NotInCases()] = None
    samples: int | None = None

    def __post_init__(self) -> None:
        given = {
            "every": self.every if isinstance(self.every, Every) else Every(self.every),
            "top": as_count(self.top, "top", least=0),
            "trace": as_count(self.trace, "trace", least=0),
            "density": as_count(self.density, "density", least=0),
            "density_steps": as_count(self.density_steps, "density_steps"),
            "most": as_count(self.most, "most"),
            "tol": as_positive(self.tol, "tol"),
            "seed": as_seed(self.seed),
            "symmetries": tuple(self.symmetries),
            "dtype": None if self.dtype is None else as_dtype(self.dtype),
            "chunk_size": None if self.chunk_size is None else as_count(self.chunk_size, "chunk_size"),
            "samples": None if self.samples is None else as_count(self.samples, "samples"),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        for name, value, allowed in (
            ("matrix", self.matrix, ("hessian", "gauss_newton")),
            ("mode", self.mode, (None, "train", "eval")),
        ):
            if value not in allowed:
                raise ArgumentError(f"{name} must be one of {allowed}; {said(value)} was given")
        least = 2 if self.top else 6
        if 0 < self.trace < least:
            raise ArgumentError(f"trace must be 0 or at least {least} products; {self.trace} was given")
        if self.symmetries and self.matrix != "hessian":
            raise ArgumentError("symmetries constrain the Hessian: leave them out of a Gauss–Newton matrix")
        objective_of(self.objective, self.loss_fn, self.batch, "Hessian")
        if self.batch is None and self.chunk_size is not None:
            raise ArgumentError(
                "Hessian: chunk_size is of a batch of one's own; a Problem's samples have its own"
            )
        if self.batch is None and self.matrix == "hessian" and (self.mode or self.dtype) is not None:
            raise ArgumentError("Hessian: mode and dtype are of a batch of one's own; a Problem has its own")
        if self.batch is not None and self.samples is not None:
            raise ArgumentError("Hessian: samples are of a problem's, and a batch was given: leave one out")

    def begin(self, context: Context) -> Sequence[Observer]:
        return [_Measured(context, self)]


class _Measured(Observer):
    """Each search starts from the eigenvectors before."""

    def __init__(self, context: Context, asked: Hessian) -> None:
        self._asked, name = asked, asked.matrix
        self.dim = f"{name}_step"
        self._probing = Probing(
            context,
            objective_of(asked.objective, asked.loss_fn, asked.batch, "Hessian"),
            asked.batch,
            matrix=asked.matrix,
            mode=asked.mode,
            dtype=asked.dtype,
            seed=asked.seed,
            who="Hessian",
            chunk_size=asked.chunk_size,
            samples=asked.samples,
        )
        self._meter = (
            ChargeMeter(context.layout, asked.symmetries, context.device) if asked.symmetries else None
        )
        self._size = context.layout.size
        self._start: Tensor | None = None
        self.variables = {f"{name}_{key}": one for key, one in _declared(asked).items()}

    def steps(self, context: Context) -> Collection[int]:
        assert isinstance(self._asked.every, Every)
        return self._asked.every.steps(context)

    def coordinates(self) -> Coordinates:
        if self._meter is None:
            return {}
        dim = f"{self._asked.matrix}_symmetry"
        names = [symmetry.name for symmetry in self._asked.symmetries]
        return {dim: (dim, np.array(names, dtype=object))}  # Zarr v3 has a type for strings, none for '<U'

    def memory(self) -> Mapping[str, Any]:
        small = self._start is not None and self._start.numel() <= _KEPT
        return {"start": self._start if small else None}

    def restore(self, memory: Mapping[str, Any]) -> None:
        self._start = memory["start"]

    def observe(self, view: View) -> Mapping[str, Any]:
        # Before the model is taken: along a flow its problem would evaluate it.
        of_step = view.gradient if self._asked.top else None
        with self._probing.at(view) as matrix:
            finite, size = _finite(matrix.loss, matrix.gradient), float(norm(matrix.gradient))
            # With a direction of norm 1 no product of a small gradient vanishes, and none of a large one overflows.
            unit = matrix.gradient / size if size else matrix.gradient
            product = matrix.matvec(unit) if finite else None
            if product is not None and _finite(product):
                found = self._measure(matrix, unit, product, view, of_step)
            else:
                self._start = None
                found = self._nothing(matrix)
        return {f"{self._asked.matrix}_{name}": value for name, value in found.items()}

    def _measure(
        self, matrix: Probed, unit: Tensor, product: Tensor, view: View, of_step: Tensor | None
    ) -> dict[str, Any]:
        """Given the gradient's direction, and the product with it."""
        asked, gradient, seed = self._asked, matrix.gradient, seed_at(self._asked.seed, view.step)
        spent, size = 1, norm(gradient)
        found: dict[str, Any] = {
            "loss": matrix.loss.double(),
            "grad_norm": size,
            "random": float(matrix.random),
            "curvature": inner(unit, product) / inner(unit, unit),
            "gradient_norm": size * norm(product),
        }
        known: tuple[Tensor, Tensor] | None = None
        if asked.top:
            start = None if self._start is None else self._start.to(matrix.like)
            pairs = largest_eigenpairs(
                matrix, asked.top, start=start, also=gradient, tol=asked.tol, most=asked.most, seed=seed
            )
            self._start, spent = pairs.start, spent + pairs.products
            known = (pairs.vectors, pairs.values)
            found |= {
                "eigenvalue": pairs.values,
                "eigenvalue_residual": pairs.residuals,
                "asymmetry": pairs.asymmetry,
                "overlap": _share(pairs.vectors, unit),
            }
            if of_step is not None:
                found["step_overlap"] = _share(pairs.vectors, of_step.to(matrix.like))
        if asked.trace:
            traced = trace(matrix, asked.trace, known=known, seed=seed + 1)
            spent += traced.products
            found |= {
                "trace": traced.value,
                "trace_error": traced.standard_error,
                "trace_vectors": float(traced.vectors),
            }
        if asked.density:
            rules = quadratures(matrix, asked.density, asked.density_steps, seed=seed + 2)
            spent += rules.products
            found |= {"node": rules.nodes, "weight": rules.weights}
        if self._meter is not None:
            of_matrix = float(norm(product))
            if (
                not of_matrix
            ):  # no gradient, or one that H takes to nothing: H's size in a direction by chance
                of_matrix = self._size_by_chance(matrix, seed + 4)
                spent += 1
            found["constraint"] = self._constraints(self._meter, matrix, view, of_matrix, seed + 3)
            spent += len(asked.symmetries)
        return found | {"products": float(spent)}

    def _size_by_chance(self, matrix: Probed, seed: int) -> float:
        drawn = signs(matrix.like, torch.Generator("cpu").manual_seed(seed))
        return float(norm(matrix.matvec(drawn)) / norm(drawn))

    def _constraints(self, meter: ChargeMeter, matrix: Probed, view: View, size: float, seed: int) -> Tensor:
        """Hξ + Bg = 0 follows from ⟨g, ξ⟩ = 0 at every theta (docs/theory.md §2.1)."""
        source = torch.Generator("cpu").manual_seed(seed)
        theta, residuals = view.theta.to(matrix.like), []
        for symmetry in meter.symmetries:
            coefficients = theta.new_zeros(meter.count)
            where = meter.slices[symmetry.name]
            drawn = torch.randn(symmetry.count, generator=source, dtype=torch.float64, device="cpu")
            coefficients[where] = drawn.to(coefficients)
            along = meter.apply(theta, coefficients) + meter.shift(theta, coefficients)
            product, expected = matrix.matvec(along), meter.apply(matrix.gradient, coefficients)
            # Of a translation both are zero: then H in the gradient's direction is what to compare with.
            least = _FLOOR * size * float(norm(along))
            scale = max(float(norm(product) + norm(expected)), least)
            residuals.append(float(norm(product + expected)) / scale if scale else 0.0)
        return torch.tensor(residuals, dtype=torch.float64, device="cpu")

    def _nothing(self, matrix: Probed) -> dict[str, Any]:
        asked = self._asked
        sizes = {
            f"{asked.matrix}_eigenpair": min(asked.top, self._size),
            f"{asked.matrix}_vector": asked.density,
            f"{asked.matrix}_rule": asked.density_steps,
            f"{asked.matrix}_symmetry": len(asked.symmetries),
        }
        missing = {
            name: torch.full([sizes[dim] for dim in one.dims], math.nan, dtype=torch.float64, device="cpu")
            for name, one in _declared(asked).items()
        }
        return missing | {
            "loss": matrix.loss.double(),
            "grad_norm": norm(matrix.gradient),
            "products": 0.0,
            "random": float(matrix.random),
        }


def _finite(*tensors: Tensor) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _declared(asked: Hessian) -> dict[str, Variable]:
    """The variables, without the matrix's name before theirs."""
    name = asked.matrix
    a = {"hessian": "H", "gauss_newton": "G"}[name]
    found = {
        "loss": Variable((), "loss of the probe batch"),
        "grad_norm": Variable((), "norm of its gradient ‖g‖"),
        "random": Variable((), "were random numbers drawn for it, the same ones each time? 1 or 0"),
        "products": Variable((), f"products with {a} spent"),
        "curvature": Variable((), f"gᵀ{a}g/‖g‖² of the probe batch's gradient"),
        "gradient_norm": Variable((), f"‖{a}g‖ of the probe batch's gradient"),
    }
    if asked.top:
        pair = (f"{name}_eigenpair",)
        found |= {
            "eigenvalue": Variable(pair, f"largest eigenvalues of {a}"),
            "eigenvalue_residual": Variable(pair, f"‖{a}v − λv‖: so near to each there is an eigenvalue"),
            "asymmetry": Variable((), f"asymmetry of the products with {a}, relative"),
            "overlap": Variable(
                (), "share of ‖g‖² in the space of the eigenvectors, of the probe batch's gradient"
            ),
            "step_overlap": Variable(
                (), "share of ‖g‖² in the space of the eigenvectors, of the step's gradient"
            ),
        }
    if asked.trace:
        found |= {
            "trace": Variable((), f"trace of {a}, estimated"),
            "trace_error": Variable((), "standard error of the trace, over random vectors"),
            "trace_vectors": Variable((), "random vectors that the trace's standard error is over"),
        }
    if asked.density:
        rule = (f"{name}_vector", f"{name}_rule")
        found |= {
            "node": Variable(rule, "nodes of Lanczos quadratures, each row of one random vector"),
            "weight": Variable(rule, "weights of the Lanczos nodes, which add up to 1 in each row"),
        }
    if asked.symmetries:
        found["constraint"] = Variable(
            (f"{name}_symmetry",), "Hessian constraint's residual ‖Hξ + ∂_ξ g‖, relative"
        )
    return found


def _share(vectors: Tensor, gradient: Tensor) -> Tensor:
    """‖Vg‖²/‖g‖² with orthonormal rows V."""
    return (vectors @ gradient).double().square().sum() / inner(gradient, gradient)
