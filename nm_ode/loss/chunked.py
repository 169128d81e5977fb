"""The loss of a batch too large for one forward pass, on a model that somebody else trains: a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.data.sources import Part, place, source_of
from nm_ode.loss.as_found import AsFound
from nm_ode.loss.batching import DeviceBatches, Reduction
from nm_ode.loss.guards import refuse_batch_statistics
from nm_ode.loss.objective import Objective
from nm_ode.loss.probed import Matrix, Probed, Products, copy_of, products, require_scalar
from nm_ode.loss.reduction import measured_reduction, require_mean_or_sum
from nm_ode.parameters import Layout

_REMEDY = "leave chunk_size out, or take mode='eval'"


@dataclass(frozen=True)
class Chunks:
    """A batch that is evaluated some samples at a time.

    Attributes:
        take: these samples, on any device.
        count: how many there are.
        size: the most in a chunk.
        reduction: what the loss over samples is of theirs; None if it is to be measured.
        factor: of the loss.
    """

    take: Callable[[slice], Any]
    count: int
    size: int
    reduction: Reduction | None = None
    factor: float = 1.0

    @classmethod
    def of(cls, batch: Any, size: int) -> Chunks:
        """Of a tree of tensors or arrays, or a Dataset or source, of which a chunk at a time is read.

        Raises:
            DataError: nothing that samples could be taken from.
        """
        source = source_of(batch)
        return cls(source.take, len(source), size)

    def few(self, most: int) -> Any:
        """The first samples, no more than are evaluated together."""
        return self.take(slice(0, min(most, self.size, self.count)))

    def weighted(self, reduction: Reduction) -> Iterator[tuple[Any, float]]:
        """Chunks, and the weights with which their losses add up to the whole's."""
        for start in range(0, self.count, self.size):
            stop = min(start + self.size, self.count)
            share = (stop - start) / self.count if reduction == "mean" else 1.0
            yield self.take(slice(start, stop)), self.factor * share

    def __len__(self) -> int:
        return self.count


class Chunked(Probed):
    """Loss, gradient and products of all chunks, each of which is evaluated anew for each product.

    Made inside `leaves_in_place`.

    Raises:
        ProblemError: a loss over samples that is neither mean nor sum of theirs, or a layer that couples the samples.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        chunks: Chunks,
        found: AsFound,
        leaves: list[Tensor],
        layout: Layout,
        matrix: Matrix,
    ) -> None:
        self._found, self._leaves, self._chunks = found, leaves, chunks
        self._build = partial(products, model, objective, found=found, leaves=leaves, matrix=matrix)
        reduction = chunks.reduction
        if reduction is None:
            refuse_batch_statistics(model, "chunk_size would change the loss", _REMEDY)
            source = Part(source_of(chunks), slice(0, chunks.count))  # read and placed a chunk at a time
            batches = DeviceBatches(source, leaves[0].device, leaves[0].dtype, chunks.size)
            at = LossAt(model, objective, found, leaves, layout)
            measured = measured_reduction(batches, at, chunks.size)
            at.put_back()
            reduction = require_mean_or_sum(measured, "chunk_size would change the loss", _REMEDY)
        self.reduction: Reduction = reduction
        self.random = False
        losses, gradient = [], torch.zeros(layout.size, dtype=leaves[0].dtype, device=leaves[0].device)
        for one, weight in self._each():
            self.random |= one.random
            losses.append(weight * one.loss.double())
            gradient.add_(one.gradient, alpha=weight)
        self.loss, self.gradient = torch.stack(losses).sum(), gradient

    def matvec(self, v: Tensor) -> Tensor:
        """A v, shape (P,)."""
        total = torch.zeros_like(self.gradient)
        for one, weight in self._each():
            total.add_(one.matvec(v), alpha=weight)
        return total

    def _each(self) -> Iterator[tuple[Products, float]]:
        try:
            for i, (batch, weight) in enumerate(self._chunks.weighted(self.reduction)):
                self._found.part = i
                yield self._build(place(batch, self._leaves[0].device, self._leaves[0].dtype)), weight
        finally:
            self._found.part = 0


class LossAt:
    """Loss and gradient at other thetas, of any batch: what `measured_reduction` asks for.

    Args:
        found: what a pass changes is put back before the next; None for what changes nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        found: AsFound | None,
        leaves: list[Tensor],
        layout: Layout,
    ) -> None:
        self._evaluate, self._found, self._leaves = partial(objective, model), found, leaves
        self.layout = layout
        self.theta = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])

    def set(self, theta: Tensor) -> None:
        with torch.no_grad():
            for leaf, piece in zip(self._leaves, self.layout.split(theta), strict=True):
                leaf.copy_(piece)

    def put_back(self) -> None:
        self.set(self.theta)

    def loss(self, batch: Any) -> Tensor:
        if self._found is not None:
            self._found.rewind()
        return require_scalar(self._evaluate(copy_of(batch))).to(self.theta.dtype)

    def loss_and_grad(self, batch: Any) -> tuple[Tensor, Tensor]:
        loss = self.loss(batch)
        pieces = torch.autograd.grad(loss, self._leaves, allow_unused=True, materialize_grads=True)
        return loss.detach(), torch.cat([piece.reshape(-1) for piece in pieces])
