"""The few things that a solve asks of its vectors: NumPy arrays, or tensors of torch wherever they lie.

Nothing here imports torch: what is asked of a tensor are methods of its own.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = Any
"""Shape (n,): a NumPy array of float64, or a tensor of torch. The state is always of float64; what a field is given and
gives back is in `OdeProblem.field_dtype` if the state is a tensor."""

_PIECE, _PIECE_FAR = 2**18, 2**24
"""Entries of a tensor that are worked on at a time."""


def is_tensor(vector: Vector) -> bool:
    """A tensor of torch, and not an array?"""
    return hasattr(vector, "new_tensor")


def is_far(vector: Vector) -> bool:
    """A tensor that is not in the host's memory: to look at one of its numbers is to wait for its device."""
    return is_tensor(vector) and vector.device.type != "cpu"


def is_finite(vector: Vector) -> bool:
    """Are all entries finite? No mask is made of a tensor: a sum with NaN or an infinity in it is not finite."""
    if not is_tensor(vector):
        return bool(np.isfinite(vector).all())
    # The sum of finite entries may overflow: then they are looked at one by one.
    return math.isfinite(float(vector.sum())) or bool(vector.isfinite().all())


def copied(vector: Vector) -> Vector:
    """Another vector with the same entries, where the first lies."""
    return vector.clone() if is_tensor(vector) else np.array(vector, dtype=np.float64)


def norm(vector: Vector) -> float:
    """The 2-norm, accumulated in float64, a piece at a time."""
    if is_tensor(vector):
        return math.sqrt(sum(piece.double().norm().square() for piece in _pieces(vector)))
    return float(np.linalg.norm(vector))


def distance(one: Vector, other: Vector) -> float:
    """The 2-norm of their difference, of which no vector is made if they are tensors."""
    if is_tensor(one):
        pairs = zip(_pieces(one), _pieces(other), strict=True)
        return math.sqrt(sum((a - b).double().norm().square() for a, b in pairs))
    return float(np.linalg.norm(one - other))


def on_host(vector: Vector) -> NDArray[np.float64]:
    """As a NumPy array of float64; of an array, or a tensor of float64 in the host's memory, no copy is made."""
    if is_tensor(vector):
        vector = vector.detach().cpu().double().numpy()
    return np.asarray(vector, dtype=np.float64)


def like(vector: Vector, entries: NDArray[np.float64]) -> Vector:
    """These entries as a vector of that kind: a copy of them in its dtype and on its device, or the array itself."""
    return vector.new_tensor(entries) if is_tensor(vector) else entries


def _pieces(tensor: Vector) -> Vector:
    return tensor.split(_PIECE_FAR if is_far(tensor) else _PIECE)
