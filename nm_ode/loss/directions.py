"""Random directions from theta, to look at a loss beside its start: the same ones at every call with one seed."""

from __future__ import annotations

import torch
from torch import Tensor

from nm_ode.parameters import Layout


def normal(like: Tensor, seed: int | torch.Generator) -> Tensor:
    """Independent standard normal numbers of the shape, dtype and device of `like`, the same on every device.

    Args:
        seed: or a generator on the CPU, to draw more than once from.
    """
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator("cpu").manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu").to(like)


def scales(theta: Tensor, layout: Layout) -> Tensor:
    """The size of each entry, shape (P,): the root mean square of its parameter tensor.

    Of a parameter that is zero (a bias, say) it is that of all of theta; 1 where that is zero, too.
    """
    overall = _root_mean_square(theta)
    overall = torch.where(overall > 0, overall, 1.0)
    sizes = torch.empty_like(theta)
    for part, size in zip(layout.split(theta), layout.split(sizes), strict=True):
        own = _root_mean_square(part)
        size.copy_(torch.where(own > 0, own, overall).expand(part.shape))
    return sizes


def _root_mean_square(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor.double())
    return norm.div(max(tensor.numel(), 1) ** 0.5)
