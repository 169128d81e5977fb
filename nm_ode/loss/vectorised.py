"""Gradients at many points or of many samples at once, by `torch.func.vmap` over `functional_call`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from nm_ode.data.sources import Samples, count
from nm_ode.data.trees import Rebuild, flatten
from nm_ode.loss.batching import DeviceBatches
from nm_ode.loss.objective import Objective
from nm_ode.parameters import Layout

T = TypeVar("T")
LossAndGrad: TypeAlias = Callable[[Tensor, Any], tuple[Tensor, Tensor]]
"""`(theta, samples) -> (L, ∇L)`: a problem's own."""

_NUMBERS = 2**24  # of gradients that are in the making at once
_SAMPLES = 2**14  # in one forward pass of an ensemble; beyond, nothing is gained by more


class VectorisedWarning(UserWarning):
    """`vmap` is not possible for a loss: its gradients are taken one after another, which is slower."""


class Vectorised:
    """One objective's gradients, vectorised over samples or over parameters.

    What `vmap` gives is held against a gradient of the ordinary kind once; where it fails or differs, the ordinary
    ones are taken from then on, after a warning with the reason.
    """

    def __init__(self, model: nn.Module, objective: Objective, layout: Layout) -> None:
        self._evaluation = _Evaluation(model, objective)
        self._layout = layout
        self._names = [f"model.{name}" for name in layout.names]
        self._known: dict[str, bool] = {}  # is vmap to be trusted for samples, and for members?

    def sample_grads(
        self, theta: Tensor, batches: DeviceBatches, samples: Samples, one: LossAndGrad
    ) -> Tensor:
        """Shape (B, P): one row a sample."""
        rows = theta.new_empty(count(samples, len(batches)), self._layout.size)
        at_once = min(batches.chunk_size or _NUMBERS, max(1, _NUMBERS // self._layout.size))

        def together() -> Tensor:
            start = 0
            for part in batches.pieces(samples, at_once):
                found = self._rows(theta, batches.batch(part))
                rows[start : start + len(found)] = found
                start += len(found)
            return rows

        def each() -> Iterator[Tensor]:
            return (one(theta, part)[1] for part in batches.pieces(samples, 1))

        def loop() -> Tensor:
            for row, gradient in zip(rows, each(), strict=True):
                row.copy_(gradient)
            return rows

        return self._vectorised_or_not("samples", together, loop, lambda: _same(rows, next(each())))

    def loss_and_grad(
        self, thetas: Tensor, batches: DeviceBatches, samples: Tensor | None, one: LossAndGrad
    ) -> tuple[Tensor, Tensor]:
        """Shapes (M,) and (M, P): at each point over its own row of `samples`, or over all."""
        losses, gradients = thetas.new_empty(len(thetas)), torch.empty_like(thetas)
        width = len(batches) if samples is None else samples.shape[1]
        per_pass = min(width, batches.chunk_size or width)
        members = max(1, min(_NUMBERS // self._layout.size, (batches.chunk_size or _SAMPLES) // per_pass))

        def of_member(i: int) -> tuple[Tensor, Tensor]:
            return one(thetas[i], None if samples is None else samples[i])

        def together() -> tuple[Tensor, Tensor]:
            for start in range(0, len(thetas), members):
                some = slice(start, start + members)
                own = None if samples is None else samples[some]
                losses[some], gradients[some] = self._members(thetas[some], batches, own)
            return losses, gradients

        def loop() -> tuple[Tensor, Tensor]:
            for i in range(len(thetas)):
                losses[i], gradients[i] = of_member(i)
            return losses, gradients

        return self._vectorised_or_not("members", together, loop, lambda: _same(gradients, of_member(0)[1]))

    def _rows(self, theta: Tensor, batch: Any) -> Tensor:
        leaves, rebuild = _tensors(batch)

        def loss(theta: Tensor, *leaves: Tensor) -> Tensor:
            return self._loss(theta, [leaf.unsqueeze(0) for leaf in leaves], rebuild)

        found: Tensor = vmap(grad(loss), (None, *[0] * len(leaves)))(theta, *leaves)
        return found.detach()

    def _members(
        self, thetas: Tensor, batches: DeviceBatches, samples: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        losses, gradients = thetas.new_zeros(len(thetas)), torch.zeros_like(thetas)
        for leaves, rebuild, weight in _batches_of_members(batches, samples):

            def loss(theta: Tensor, *leaves: Tensor, rebuild: Rebuild = rebuild) -> Tensor:
                return self._loss(theta, leaves, rebuild)

            dims = (0, *[None if samples is None else 0] * len(leaves))
            some_gradients, some_losses = vmap(grad_and_value(loss), dims)(thetas, *leaves)
            losses.add_(some_losses.detach(), alpha=weight)
            gradients.add_(some_gradients.detach(), alpha=weight)
        return losses, gradients

    def _loss(self, theta: Tensor, leaves: Any, rebuild: Rebuild) -> Tensor:
        parameters = dict(zip(self._names, self._layout.split(theta), strict=True))
        loss: Tensor = functional_call(self._evaluation, parameters, (rebuild(leaves),))
        return loss

    def _vectorised_or_not(
        self, over: str, together: Callable[[], T], loop: Callable[[], T], agrees: Callable[[], bool]
    ) -> T:
        if self._known.get(over) is False:
            return loop()
        try:
            with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
                warnings.filterwarnings(
                    "ignore", message=".*performance drop.*"
                )  # of one operation: still right
                found = together()
        except (
            Exception
        ) as error:  # whatever vmap or the model raises under it: the loop shows what is the model's
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}"
        else:
            if self._known.get(over) or agrees():
                self._known[over] = True
                return found
            reason = "it gives other gradients than one at a time"
        found = loop()
        self._known[over] = False
        warnings.warn(
            f"gradients of many {over} are taken one at a time, because torch.func.vmap is not possible for this "
            f"loss ({reason})",
            VectorisedWarning,
            stacklevel=4,
        )
        return found


class _Evaluation(nn.Module):
    """The objective of a model as a module, whose parameters `functional_call` can replace."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = [objective]  # in a list, for it may be a module that is no part of the model

    def forward(self, batch: Any) -> Tensor:
        return self._objective[0](self.model, batch)


def _batches_of_members(
    batches: DeviceBatches, samples: Tensor | None
) -> Iterator[tuple[list[Tensor], Rebuild, float]]:
    """Chunks, as leaves of shape (B, …) that all members share, or (M, B, …) of their own, with their weights."""
    if samples is None:
        for batch, weight in batches.chunks(None):
            yield *_tensors(batch), weight
        return
    members, width = samples.shape
    for columns in samples.split(batches.chunk_size or width, dim=1):
        leaves, rebuild = _tensors(batches.batch(columns.reshape(-1)))
        weight = columns.shape[1] / width if batches.reduction == "mean" else 1.0
        yield [leaf.unflatten(0, (members, columns.shape[1])) for leaf in leaves], rebuild, weight


def _tensors(batch: Any) -> tuple[list[Tensor], Rebuild]:
    leaves, rebuild = flatten(batch)
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            raise TypeError(f"the batch has a leaf that is no tensor of samples: {type(leaf).__name__}")
    return leaves, rebuild


def _same(found: Tensor, first: Tensor) -> bool:
    """Is the first row as it should be, to rounding relative to the largest row?"""
    if not found.isfinite().all():
        return bool(torch.allclose(found[0], first, equal_nan=True))
    scale = torch.linalg.vector_norm(found, dim=1).max()
    tolerance = torch.finfo(found.dtype).eps ** 0.5
    return bool(torch.linalg.vector_norm(found[0] - first) <= tolerance * scale)
