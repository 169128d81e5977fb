"""Batches of other sizes, at which a model may do something else: what is proved of one must be proved of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nm_ode.symmetries.batches import repeated, tensors_of, with_tensors
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.loss_module import LossModule
from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.symmetry import Symmetry
from nm_ode.symmetries.traced_loss import TracedLoss


def lost_elsewhere(loss: TracedLoss, symmetries: Sequence[Symmetry]) -> dict[str, str]:
    """Name of a symmetry → a size of batches for which the model's graph is another, which does not have it."""
    lost: dict[str, str] = {}
    for size, tensors in _others(loss) if symmetries else ():
        there = _traced(loss, size, tensors)
        if there is not None:
            kept = {_moves(symmetry) for symmetry in discover(there.graph).symmetries}
            lost = {s.name: size for s in symmetries if _moves(s) not in kept} | lost
    return lost


def _others(loss: TracedLoss) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Batches with other numbers of samples, or with inputs that are longer by one."""
    tensors = tensors_of(loss.batch)
    for size in loss.graph.other_sizes:
        yield (
            f"{size} samples",
            tuple(repeated(tensor, size) if tensor.ndim else tensor for tensor in tensors),
        )
    for length in loss.graph.lengths:
        yield f"inputs of length {length + 1}", tuple(_longer(tensor, length) for tensor in tensors)


def _longer(tensor: Tensor, length: int) -> Tensor:
    """By its last entry again along the dimensions of this size, but that of samples."""
    for dim in range(1, tensor.ndim):
        if tensor.shape[dim] == length:
            tensor = torch.cat([tensor, tensor.narrow(dim, length - 1, 1)], dim)
    return tensor


def _traced(loss: TracedLoss, size: str, tensors: tuple[Tensor, ...]) -> TracedLoss | None:
    """The same loss on such a batch, traced at it; None if the model takes none of this size."""
    batch = with_tensors(loss.batch, tensors)
    try:
        LossModule(loss.model, loss.objective, batch).evaluated(tensors)
    except Exception:  # whatever a model says of a batch that it does not take
        return None
    try:
        return TracedLoss(loss.model, loss.objective, batch, sizes=False, stops=loss.stops)
    except SymmetryError as error:
        raise SymmetryError(f"for a batch of {size} {error}") from error


def _moves(symmetry: Symmetry) -> tuple[object, ...]:
    """What a symmetry does to theta, as something that can be compared."""
    return symmetry.kind, tuple(
        (part.view, part.axes, part.weight, part.index.numpy().tobytes()) for part in symmetry.parts
    )
