"""Norms and inner products of long vectors, in float64 whatever theirs is: of any scale, some entries at a time.

What is done to a vector of theta's size a piece at a time takes no memory of that size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

PIECE = 2**22
"""Entries that are copied to float64 at a time."""


def inner(u: Tensor, v: Tensor) -> Tensor:
    """⟨u, v⟩, a scalar in float64 on the device."""
    return torch.stack([torch.dot(a.double(), b.double()) for a, b in _pieces(u, v)]).sum()


def norm(v: Tensor) -> Tensor:
    """‖v‖, a scalar in float64 on the device. Squares of float32's numbers neither vanish nor overflow in it."""
    return _norm_of(piece for (piece,) in _pieces(v))


def distance(u: Tensor, v: Tensor) -> Tensor:
    """‖u − v‖, a scalar in float64 on the device."""
    return _norm_of(a - b for a, b in _pieces(u, v))


def bend(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """‖(w − v) − (v − u)‖, a scalar in float64 on the device."""
    return _norm_of((c - b).sub_(b - a) for a, b, c in _pieces(u, v, w))


def combination_error(weights: tuple[float, float], parts: tuple[Tensor, Tensor], whole: Tensor) -> Tensor:
    """‖a·u + b·v − w‖, a scalar in float64 on the device."""
    a, b = weights
    return _norm_of((a * u).add_(b * v).sub_(w) for u, v, w in _pieces(*parts, whole))


def _pieces(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(vector.reshape(-1).split(PIECE) for vector in vectors), strict=True)


def _norm_of(pieces: Iterable[Tensor]) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(piece.double()) for piece in pieces])
    )
    return found
