"""An oracle for symmetries: ⟨g, ξ⟩ of the plain model by autograd, at other parameters and on other batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nm_ode.parameters import Layout
from nm_ode.symmetries import ChargeMeter, Symmetry

Pair = tuple[Tensor, Tensor]


def worst_constraint(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    found: Sequence[Symmetry],
    batches: Sequence[Pair],
) -> float:
    """The largest |⟨g, ξ⟩| / (‖g‖ ‖ξ‖) of the symmetries without ε, by `backward()` on a copy of the model."""
    exact = [symmetry for symmetry in found if not symmetry.epsilon]
    worst = 0.0
    random = torch.Generator().manual_seed(7)
    for x, y in batches if exact else ():
        moved = copy.deepcopy(model).double()
        trained = [parameter for parameter in moved.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for parameter in trained:
                noise = torch.randn(parameter.shape, dtype=torch.float64, generator=random)
                parameter.add_(0.3 * noise * (parameter != 0))  # rows that are zero stay so
        loss(moved(x), y).backward()
        grad = torch.cat(
            [torch.zeros(p.numel(), dtype=p.dtype) if p.grad is None else p.grad.reshape(-1) for p in trained]
        )
        theta = torch.cat([parameter.detach().reshape(-1) for parameter in trained])
        meter = ChargeMeter(Layout.of(moved), exact)
        scale = (meter.generator_norm(theta) * grad.norm()).clamp_min(1e-300)
        worst = max(worst, float((meter.constraint(grad, theta).abs() / scale).max()))
    return worst
