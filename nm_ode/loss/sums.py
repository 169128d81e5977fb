"""Norms and inner products of long vectors, in float64 whatever theirs is: of any scale, some entries at a time."""

from __future__ import annotations

import torch
from torch import Tensor

_PIECE = 2**22  # entries: what is copied to float64 at a time


def inner(u: Tensor, v: Tensor) -> Tensor:
    """⟨u, v⟩, a scalar in float64 on the device."""
    pieces = zip(u.reshape(-1).split(_PIECE), v.reshape(-1).split(_PIECE), strict=True)
    return torch.stack([torch.dot(a.double(), b.double()) for a, b in pieces]).sum()


def norm(v: Tensor) -> Tensor:
    """‖v‖, a scalar in float64 on the device. Squares of float32's numbers neither vanish nor overflow in it."""
    pieces = v.reshape(-1).split(_PIECE)
    found: Tensor = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(piece.double()) for piece in pieces])
    )
    return found
