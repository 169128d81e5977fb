"""A layer that does something else in its forward pass, around which a small problem is made."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem

GENERATOR = torch.Generator().manual_seed(7)
X = torch.randn(24, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.randn(24, 2, dtype=torch.float64, generator=GENERATOR)


def around(last: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = nn.Linear(4, 8)
        for parameter in last.parameters():
            if parameter.requires_grad:
                nn.init.uniform_(parameter, -0.3, 0.3)
    return nn.Sequential(first, nn.Tanh(), last).double()


class Doing(nn.Linear):
    """A linear layer that does something else in its forward pass, and may add to what comes out."""

    def __init__(self, also: Callable[[Any, Tensor], Any], **attributes: Any) -> None:
        super().__init__(8, 2)
        self.also = also
        for name, value in attributes.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        more = self.also(self, out)
        return super().forward(x) if more is None else out + more


def assert_trains_as_torch_does(model: nn.Module) -> None:
    problem = Problem(model, F.mse_loss, (X, Y))
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=20)
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        F.mse_loss(reference(X), Y).backward()
        optimizer.step()
    assert float(run.full_loss[-1]) == pytest.approx(float(F.mse_loss(reference(X), Y).detach()), rel=1e-9)
