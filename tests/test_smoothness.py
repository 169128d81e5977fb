"""Which operations count as kinks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode import Problem
from nm_ode.smoothness import kinks


def conv(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), *between, nn.Flatten(), nn.LazyLinear(2))


def problem(model: nn.Module, loss=F.mse_loss) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 1, 4, 4, generator=generator), torch.randn(6, 2, generator=generator)
    model(x)
    return Problem(model, loss, (x, y))


@pytest.mark.parametrize(
    "smooth", [nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Sigmoid(), nn.ELU(), nn.AvgPool2d(2)]
)
def test_smooth_operations_are_no_kinks(smooth: nn.Module) -> None:
    assert kinks(problem(conv(smooth))) == ()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.ReLU(), "ReLU"),
        (nn.LeakyReLU(), "LeakyReLU"),
        (nn.PReLU(), "PReLU"),
        (nn.ReLU6(), "hardtanh / ReLU6"),
        (nn.Hardtanh(), "hardtanh / ReLU6"),
        (nn.Threshold(0.1, 0.0), "threshold"),
        (nn.MaxPool2d(2), "max-pooling"),
        (nn.AdaptiveMaxPool2d(2), "max-pooling"),
        (nn.Hardswish(), "hardswish"),
        (nn.Softshrink(), "softshrink"),
    ],
)
def test_kinked_modules_are_named(module: nn.Module, name: str) -> None:
    assert kinks(problem(conv(module))) == (name,)


class ByHand(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.abs, "abs"),
        (lambda x: x.clamp(min=0), "clamp"),
        (lambda x: torch.maximum(x, 0.1 * x), "maximum"),
        (lambda x: torch.where(x > 0, x, 0.0), "where"),
        (lambda x: x.max(dim=-1, keepdim=True).values * x, "max"),
        (lambda x: x.amax(dim=-1, keepdim=True) * x, "max"),
    ],
)
def test_kinks_written_by_hand_are_found(function, name: str) -> None:
    assert kinks(problem(conv(ByHand(function)))) == (name,)


def test_a_kink_in_the_loss_counts() -> None:
    assert kinks(problem(conv(), loss=F.l1_loss)) == ("abs",)


def test_a_kink_that_no_gradient_passes_does_not_count() -> None:
    class PreparesInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = conv()

        def forward(self, x):
            return self.model(x.abs())

    assert kinks(problem(PreparesInputs())) == ()
