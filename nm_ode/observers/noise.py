"""Minibatch noise at a cadence: how large it is beside the gradient, and at which batch size both are alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nm_ode.arguments import as_count, as_dtype, said
from nm_ode.data.sources import place
from nm_ode.data.trees import flatten
from nm_ode.errors import ArgumentError
from nm_ode.loss import LossFunction, Objective, ProblemError, guards
from nm_ode.loss.as_found import AsFound
from nm_ode.loss.batching import spread_samples
from nm_ode.loss.noise_scale import Estimate, noise_scale
from nm_ode.loss.probed import Mode, copy_of, leaves_in_place, require_scalar
from nm_ode.loss.sums import norm
from nm_ode.observers.base import Context, Coordinates, Observer, View
from nm_ode.observers.cadence import Every
from nm_ode.observers.probing import evaluated, objective_of, seed_at
from nm_ode.registry import NotInCases
from nm_ode.required import as_seed
from nm_ode.results import Variable

_ADDED = {
    "noise_trace": Variable((), "tr Σ, Σ the covariance of one sample's gradient"),
    "noise_signal": Variable((), "‖G‖² of the expected gradient, without the noise's share"),
    "noise_snr": Variable((), "signal-to-noise ratio of one sample's gradient ‖G‖²/tr Σ"),
    "noise_scale": Variable((), "simple noise scale tr Σ/‖G‖²", "samples"),
}


def _of(one: Variable, end: str, *dims: str) -> Variable:
    """The same of each layer, or its standard error."""
    words = ("standard error of " if end else "") + one.long_name + (", of each layer" if dims else "")
    return Variable(dims, words, one.units)


@dataclass(frozen=True, eq=False)
class Noise(Observer):
    """The noise of a batch's gradient, from a probe batch that is taken in equal parts, every so many steps.
    See docs/theory.md §4.9.

    Of objective(model, batch) on the user's own model, which is left exactly as it was found, or of the run's problem;
    as `Hessian` does it. Along `noise_step`, with standard errors (`…_error`) by the jackknife over parts:

    - `noise_trace`: tr Σ, Σ being the covariance of the gradient of one sample's loss, without bias;
    - `noise_signal`: ‖G‖² of the expected gradient, without bias; it may be below 0 where the noise hides it;
    - `noise_scale`: tr Σ/‖G‖², the simple noise scale of McCandlish et al. (2018), in samples; NaN where ‖G‖² is not
      above 0 (its error, where it is not without one of the parts). `noise_snr` is its inverse;
    - `layer_noise_trace`, `layer_noise_signal`: of each layer;
    - `noise_additivity`: how far the losses over two parts at a time are from what those over one make of them,
      relative. 0 for a mean or a sum over samples. Where it is not (statistics of the batch in BatchNorm, masked
      tokens), Σ is b times the covariance of the gradient over parts of b samples, and holds for batches of that size.

    95 % of intervals of ± t standard errors hold the truth, t being Student's with one degree less than there are parts
    (2.13 for 16), where the gradient of a part is near to normal.

    Samples come to parts in an order drawn with the seed, the same at each step: data that are sorted by label would
    else differ from part to part by more than chance. No more than two parts are evaluated together. Of a loss that
    sums over its samples, it is the gradient of their mean that is meant. What a forward pass draws (dropout) is part
    of the noise; other numbers are drawn at each step. Where a loss is not finite, all are NaN.

    Args:
        objective: of (model, batch), a scalar.
        batch: a tree of tensors or arrays, samples along their first axis; what has no axis is given to all parts. It
            may be larger than the device's memory, or lie on disk (`np.memmap`).
        loss_fn: of (model(x), y), in the place of the objective; the batch is then (x, y).
        every: `Every(n)`, or n.
        parts: how many, at least 3; None for samples one by one. Their gradients are taken twice.
        samples: without a batch, how many of the problem's, spread over all, in their first augmentation where they
            have some: at most, for parts are equal.
        mode, dtype, seed: as of `Hessian`.

    Raises:
        ArgumentError: numbers out of range, or arguments that do not go together.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=9, observe=[nm_ode.Noise(every=4)])
        >>> run.noise_step.values, bool((run.noise_trace > 2 * run.noise_trace_error).all())
        (array([0, 4, 8]), True)
    """

    costly: ClassVar[bool] = True

    objective: Objective | None = None
    batch: Annotated[Any, NotInCases()] = field(default=None, repr=False)
    loss_fn: LossFunction | None = None
    every: Every | int = 200
    parts: int | None = 16
    samples: int = 256
    mode: Mode | None = None
    dtype: torch.dtype | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given = {
            "every": self.every if isinstance(self.every, Every) else Every(self.every),
            "parts": None if self.parts is None else as_count(self.parts, "parts", least=3),
            "samples": as_count(self.samples, "samples", least=3),
            "dtype": None if self.dtype is None else as_dtype(self.dtype),
            "seed": as_seed(self.seed),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if self.mode not in (None, "train", "eval"):
            raise ArgumentError(f"mode must be one of (None, 'train', 'eval'); {said(self.mode)} was given")
        objective_of(self.objective, self.loss_fn, self.batch, "Noise")

    def begin(self, context: Context) -> Sequence[Observer]:
        return [_Measured(context, self)]


class _Measured(Observer):
    dim: str = "noise_step"
    variables: Mapping[str, Variable] = {
        **{name + end: _of(one, end) for name, one in _ADDED.items() for end in ("", "_error")},
        **{
            f"layer_{name}{end}": _of(_ADDED[name], end, "layer")
            for name in ("noise_trace", "noise_signal")
            for end in ("", "_error")
        },
        "noise_additivity": Variable(
            (), "losses over two parts less what each part's make of them, relative"
        ),
    }

    def __init__(self, context: Context, asked: Noise) -> None:
        self._asked, self._layout = asked, context.layout
        given = objective_of(asked.objective, asked.loss_fn, asked.batch, "Noise")
        of = evaluated(context, given, "Noise")
        self._model, self._objective = of.model, of.objective
        self._dtype = of.dtype if asked.dtype is None else asked.dtype
        batch = asked.batch
        if batch is None:
            problem, parts = context.problem, asked.parts or 1
            most = min(problem.n_samples, asked.samples)
            chosen = spread_samples(problem.n_samples, max(most - most % parts, 1))
            if problem.augmentation is not None:  # their first, which is noise of a step's gradient too
                chosen = chosen + problem.n_samples
            batch = problem.batch(chosen)
        self._batch = batch
        self._count = _samples_in(batch)
        self._parts = self._count if asked.parts is None else asked.parts
        if self._parts < 3 or self._count % self._parts:
            raise ArgumentError(
                f"Noise takes the batch's {self._count} samples in {self._parts} equal parts, at least 3: give another "
                "batch, or other parts"
            )
        source = torch.Generator("cpu").manual_seed(asked.seed)
        order = torch.randperm(self._count, generator=source, device="cpu")
        self._samples = order.split(self._count // self._parts)
        self._sums: bool | None = None

    def steps(self, context: Context) -> Collection[int]:
        assert isinstance(self._asked.every, Every)
        return self._asked.every.steps(context)

    def coordinates(self) -> Coordinates:
        return {"layer": ("layer", np.array(list(self._layout.layers), dtype=object))}

    def memory(self) -> Mapping[str, Any]:
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        pass

    def observe(self, view: View) -> Mapping[str, Any]:
        asked, size = self._asked, self._count // self._parts
        with leaves_in_place(
            self._model,
            self._objective,
            view.theta_parts,
            self._layout,
            mode=asked.mode,
            dtype=self._dtype,
            seed=seed_at(asked.seed, view.step),
        ) as (found, leaves):
            if size == 1:
                guards.refuse_batch_statistics(
                    self._model,
                    "a sample has no gradient of its own",
                    "give fewer parts, or mode='eval'",
                )
            ask = _Asked(self._model, self._objective, self._batch, found, leaves)
            losses, additivity = self._losses(ask)
            if not bool(losses.isfinite().all()):
                return self._nothing()
            if self._sums is None:
                self._sums = ask.sums(*self._samples[:2])
            factor = 1 / size if self._sums else 1.0
            gradients = partial(ask.gradients, self._samples, factor)
            scale = noise_scale(gradients, self._layout, self._parts, size)
        values: dict[str, Any] = {"noise_additivity": additivity}
        for name in _ADDED:
            one: Estimate = getattr(scale, name.removeprefix("noise_"))
            for end, numbers in (("", one.value), ("_error", one.error)):
                values[name + end] = numbers[-1]
                if f"layer_{name}{end}" in self.variables:
                    values[f"layer_{name}{end}"] = numbers[:-1]
        return values

    def _losses(self, ask: _Asked) -> tuple[Tensor, Tensor]:
        """Of each part, and how far those of two at a time are from what they make of it."""
        each = ask.losses(self._samples)
        pairs = [self._samples[i : i + 2] for i in range(0, self._parts - 1, 2)]
        together, single = ask.losses([torch.cat(pair) for pair in pairs]), each[: 2 * len(pairs)].view(-1, 2)
        made = [single.mean(dim=1), single.sum(dim=1)]
        scale = torch.maximum(together.abs(), single.abs().mean(dim=1)).mean()
        least = torch.stack([(together - one).abs().mean() for one in made]).min()
        return each, torch.where(scale > 0, least / scale, 0.0)

    def _nothing(self) -> dict[str, Any]:
        layers = len(self._layout.layers)
        return {
            name: torch.full([layers] * len(one.dims), torch.nan, dtype=torch.float64, device="cpu")
            for name, one in self.variables.items()
        }


class _Asked:
    """What is asked of the model's loss, over samples of the batch; inside `leaves_in_place`."""

    def __init__(
        self, model: Any, objective: Objective, batch: Any, found: AsFound, leaves: list[Tensor]
    ) -> None:
        self._evaluate = partial(objective, model)
        self._batch, self._found, self._leaves = batch, found, leaves

    def losses(self, samples: Sequence[Tensor]) -> Tensor:
        """Of each set, float64, with the random numbers of the start."""
        self._found.rewind()
        with torch.no_grad():
            return torch.stack([self._loss(some).double() for some in samples])

    def gradients(self, samples: Sequence[Tensor], factor: float) -> Iterator[Tensor]:
        """Of each set's loss, shape (P,), each time from the same random numbers."""
        self._found.rewind()
        for some in samples:
            loss = self._loss(some)
            if not loss.requires_grad:
                raise ProblemError("the loss does not depend on the trained parameters")
            pieces = torch.autograd.grad(loss, self._leaves, allow_unused=True, materialize_grads=True)
            yield torch.cat([piece.reshape(-1) for piece in pieces]).mul_(factor)

    def sums(self, one: Tensor, other: Tensor) -> bool:
        """Is the loss nearer to the sum over samples than to their mean? By loss and gradient: one may be 0."""
        parts = [one, other, torch.cat([one, other])]
        losses, gradients = self.losses(parts), [g.double() for g in self.gradients(parts, 1.0)]
        apart = {True: 0.0, False: 0.0}
        for a, b, whole in (losses, gradients):
            size = float(norm(a) + norm(b) + norm(whole))
            for is_sum, made in ((True, a + b), (False, (a + b) / 2)):
                apart[is_sum] += float(norm(whole - made)) / size if size else 0.0
        return apart[True] < apart[False]

    def _loss(self, samples: Tensor) -> Tensor:
        some = place(_part(self._batch, samples), self._leaves[0].device, self._leaves[0].dtype)
        return require_scalar(self._evaluate(copy_of(some)))


def _samples_in(batch: Any) -> int:
    """How many.

    Raises:
        ArgumentError: leaves of different lengths, or none with samples.
    """
    lengths = {len(leaf) for leaf in flatten(batch)[0] if getattr(leaf, "ndim", 0)}
    if len(lengths) != 1:
        raise ArgumentError(
            "Noise takes a batch in parts: its tensors must have the samples along their first axis, as many in each; "
            f"{sorted(lengths)} were found"
        )
    return lengths.pop()


def _part(batch: Any, samples: Tensor) -> Any:
    leaves, rebuild = flatten(batch)
    return rebuild([_taken(leaf, samples) if getattr(leaf, "ndim", 0) else leaf for leaf in leaves])


def _taken(leaf: Any, samples: Tensor) -> Any:
    return leaf[samples.to(leaf.device)] if isinstance(leaf, Tensor) else leaf[samples.numpy()]
