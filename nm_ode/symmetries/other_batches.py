"""Batches of other sizes, at which a model may do something else: what is proved of one must be proved of all."""

from __future__ import annotations

from collections.abc import Sequence

from nm_ode.symmetries.batches import repeated, tensors_of, with_tensors
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.graph import LossModule
from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.symmetry import Symmetry
from nm_ode.symmetries.traced_loss import TracedLoss


def lost_elsewhere(loss: TracedLoss, symmetries: Sequence[Symmetry]) -> dict[str, int]:
    """Name of a symmetry → a number of samples for which the model's graph is another, which does not have it."""
    lost: dict[str, int] = {}
    for size in loss.graph.other_sizes if symmetries else ():
        there = _of_size(loss, size)
        if there is not None:
            kept = {_moves(symmetry) for symmetry in discover(there.graph).symmetries}
            lost = {s.name: size for s in symmetries if _moves(s) not in kept} | lost
    return lost


def _of_size(loss: TracedLoss, size: int) -> TracedLoss | None:
    """The same loss on a batch of this size, traced at it; None if the model takes none of this size."""
    tensors = tuple(repeated(tensor, size) if tensor.ndim else tensor for tensor in tensors_of(loss.batch))
    batch = with_tensors(loss.batch, tensors)
    try:
        LossModule(loss.model, loss.objective, batch).evaluated(tensors)
    except Exception:  # whatever a model says of a batch that it does not take
        return None
    try:
        return TracedLoss(loss.model, loss.objective, batch, sizes=False, stops=loss.stops)
    except SymmetryError as error:
        raise SymmetryError(f"for a batch of {size} samples {error}") from error


def _moves(symmetry: Symmetry) -> tuple[object, ...]:
    """What a symmetry does to theta, as something that can be compared."""
    return symmetry.kind, tuple(
        (part.view, part.axes, part.weight, part.index.numpy().tobytes()) for part in symmetry.parts
    )
