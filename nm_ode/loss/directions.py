"""Random directions from theta, to look at a loss beside its start: the same ones at every call with one seed.

All is done some entries at a time or in place: of a vector of theta's size there are no copies but what is returned.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nm_ode.loss.sums import PIECE, norm
from nm_ode.parameters import Layout

_DRAWN = 2**20  # entries, in float64, at a time
_BLOCK = 16  # entries that torch draws together: pieces of whole blocks are drawn as they are without pieces


def normal(like: Tensor, seed: int | torch.Generator) -> Tensor:
    """Independent standard normal numbers of the shape, dtype and device of `like`, the same on every device.

    Args:
        seed: or a generator on the CPU, to draw more than once from.
    """
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator("cpu").manual_seed(seed)
    made = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    entries = made.view(-1)
    for piece in pieces_of(len(entries)):
        size = piece.stop - piece.start
        entries[piece] = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu").to(like)
    return made


def pieces_of(size: int) -> Iterator[slice]:
    """Some entries after the other, in which random numbers are drawn as they would be all at once."""
    start = 0
    while size - start > _DRAWN + _BLOCK:
        yield slice(start, start + _DRAWN)
        start += _DRAWN
    yield slice(start, size)


def scale(vector: Tensor, theta: Tensor, layout: Layout, *, least: float = 0.0) -> Tensor:
    """A vector, each entry times the size of theta there, in place.

    That is the root mean square of its parameter tensor; of one that is zero (a bias, say) that of all of theta; 1
    where that is zero, too.

    Args:
        least: the smallest size.
    """
    for part, size in zip(layout.split(vector), _sizes(theta, layout), strict=True):
        own = size.to(vector.dtype)
        part.mul_(own.clamp(min=least) if least else own)
    return vector


def around(theta: Tensor, layout: Layout, seed: int) -> Tensor:
    """Independent normal numbers, each times its entry's own size and that of its parameter (`scale`), shape (P,)."""
    found = normal(theta, seed)
    each = zip(layout.split(found), layout.split(theta), _sizes(theta, layout), strict=True)
    for part, entries, size in each:
        own = size.to(theta.dtype)
        for some, of_theta in zip(part.view(-1).split(PIECE), entries.view(-1).split(PIECE), strict=True):
            some.mul_(of_theta.abs().add_(own))
    return found


def _sizes(theta: Tensor, layout: Layout) -> Iterator[Tensor]:
    """Of each parameter, a scalar."""
    overall = _root_mean_square(theta)
    overall = torch.where(overall > 0, overall, 1.0)
    for part in layout.split(theta):
        own = _root_mean_square(part)
        yield torch.where(own > 0, own, overall)


def _root_mean_square(tensor: Tensor) -> Tensor:
    return norm(tensor).div(max(tensor.numel(), 1) ** 0.5)
